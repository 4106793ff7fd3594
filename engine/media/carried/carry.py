"""Audio, subtitles and what else a clip holds, copied packet by packet without decoding."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from fractions import Fraction

import av
from av.stream import Discard, Stream

from ..decode.container import is_cover, open_container
from .cargo import Cargo, is_cut_away, stream_tags, video_start
from .trial import add_copy, set_chapters

log = logging.getLogger("dtg_restore")

# Seconds by which the times of sound jump back only where recordings were joined.
_JUMP = 1


class StreamCopy:
    """Feeds a cargo into `output`, in step with the video, which is `output`'s first stream.

    A packet belongs to the range that holds its start, and what precedes the first frame to the
    range that starts at 0: so consecutive ranges share no packet and lose none.  A subtitle that
    is shown when a range begins is in both.
    """

    def __init__(self, cargo: Cargo, output: av.container.OutputContainer):
        self._source = open_container(cargo.path)
        self._output = output
        self._streams = {index: self._add(self._source.streams[index]) for index in cargo.streams}
        for stream in self._source.streams:
            if stream.index not in self._streams:
                stream.discard = Discard.all
        output.metadata.update(cargo.tags)
        output.streams.video[0].metadata.update(cargo.video_tags)
        for picture in cargo.pictures:
            output.add_attachment(picture.name, picture.mime_type, picture.content)
        set_chapters(output, cargo.chapters)

        start, stop = cargo.seconds
        self._origin = video_start(self._source) + Fraction(start)
        # AVI would begin the video later than it is.
        takes_early = start <= 0 and output.format.name != "avi"
        self._begin = -math.inf if takes_early else Fraction(0)
        self._end = math.inf if stop is None else Fraction(stop) - Fraction(start)
        self._joins: dict[int, tuple[int, int]] = {}  # ticks: shift since the last join, end
        self._last_dts: dict[int, int] = {}
        self._damaged: set[int] = set()
        self._packets = self._in_range()
        self._next = next(self._packets, None)

    def advance(self, seconds: float = math.inf) -> None:
        """Write the packets that start before `seconds` of output time."""
        while self._next is not None and self._next[0] < seconds:
            self._mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._source.close()

    def _add(self, stream: Stream) -> Stream:
        copy = add_copy(self._output, stream)
        copy.metadata.update(stream_tags(stream, self._output.format.name))
        return copy

    def _in_range(self) -> Iterator[tuple[Fraction, av.Packet]]:
        """(seconds since the start of the range, packet moved to that time), in file order."""
        wanted = [self._source.streams[i] for i in self._streams]
        wanted = [s for s in wanted if s.type != "attachment"]  # those are in the header
        unfinished = {s.index for s in wanted if not is_cover(s)}
        for packet in self._packets_of(wanted):
            if is_cover(packet.stream):
                packet.pts = packet.dts = 0
                yield Fraction(0), packet
            elif packet.pts is not None and packet.dts is not None:
                time = packet.pts * packet.time_base - self._origin
                if time >= self._end:
                    unfinished.discard(packet.stream.index)
                    if not unfinished:
                        return
                elif time >= self._begin or _is_shown_at(self._begin, time, packet):
                    yield self._moved(packet, time)

    def _packets_of(self, streams: list[Stream]) -> Iterator[av.Packet]:
        if not streams:
            return
        try:
            for packet in self._source.demux(streams):
                if packet.size and not _is_gap(packet) and not is_cut_away(packet):
                    self._join(packet)
                    yield packet
        except (av.FFmpegError, OSError):
            log.warning("%s is damaged: its sound was copied up to there", self._source.name)

    def _join(self, packet: av.Packet) -> None:
        """Sound whose times begin anew goes on behind what precedes it, as the frames do."""
        if packet.stream.type != "audio" or packet.pts is None or packet.dts is None:
            return
        shift, end = self._joins.get(packet.stream.index, (0, packet.dts))
        if (end - packet.dts - shift) * packet.time_base > _JUMP:
            shift = end - packet.dts
        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
        self._joins[packet.stream.index] = shift, packet.dts + (packet.duration or 0)

    def _moved(self, packet: av.Packet, time: Fraction) -> tuple[Fraction, av.Packet]:
        """To output time; a subtitle is shortened to the range."""
        assert packet.pts is not None and packet.dts is not None
        if packet.stream.type == "subtitle" and time + _length(packet) > self._end:
            packet.duration = round((self._end - time) / packet.time_base)
        if time < self._begin:
            packet.duration = round((time + _length(packet)) / packet.time_base)
            packet.pts = packet.dts = 0
            return Fraction(0), packet
        shift = round(self._origin / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return time, packet

    def _mux(self, packet: av.Packet) -> None:
        """Broken time stamps or packets of the source do not end a run."""
        index = packet.stream.index
        assert packet.pts is not None and packet.dts is not None
        if index in self._last_dts:
            last, is_audio = self._last_dts[index], packet.stream.type == "audio"
            packet.dts = max(packet.dts, last + is_audio)
            packet.pts = max(packet.pts, packet.dts)
            if is_audio and not packet.duration:  # MP4 would end before the last packet
                packet.duration = packet.dts - last
        self._last_dts[index] = packet.dts
        packet.stream = self._streams[index]
        try:
            self._output.mux(packet)
        except (ValueError, av.InvalidDataError) as error:
            if index not in self._damaged:
                self._damaged.add(index)
                name = self._output.format.name
                log.warning(
                    "%s: %s takes not all of track %d: %s", self._source.name, name, index, error
                )


def _length(packet: av.Packet) -> Fraction:
    return Fraction(packet.duration or 0) * packet.time_base


def _is_shown_at(begin: Fraction | float, time: Fraction, packet: av.Packet) -> bool:
    return packet.stream.type == "subtitle" and time + _length(packet) > begin


def _is_gap(packet: av.Packet) -> bool:
    """The empty text that the MOV muxer writes between two others, of itself."""
    context = packet.stream.codec_context
    return context is not None and context.name == "mov_text" and bytes(packet) == bytes(2)
