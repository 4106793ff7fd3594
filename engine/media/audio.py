"""Audio of the source, copied packet by packet without decoding."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av

from .container import open_container

log = logging.getLogger("dtg_restore")

# Seconds (start, stop), stop None = to the end.
Span = tuple[float | Fraction, float | Fraction | None]


class AudioCopy:
    """Feeds the audio of `source` into `output`, in step with the video.

    A packet belongs to the range that holds its start, and what precedes the first frame to the
    range that starts at 0: so consecutive ranges share no packet and lose none.

    Parameters
    ----------
    seconds : (start, stop) on the source's video timeline, stop None = to the end.
    """

    def __init__(
        self,
        path: str,
        output: av.container.OutputContainer,
        seconds: Span = (0, None),
    ):
        self._source = open_container(path)
        self._output = output
        self._streams = {
            index: self._add(cast(av.AudioStream, self._source.streams[index]))
            for index in storable_streams(path, output.format.name)
        }
        start, stop = seconds
        self._origin = _video_start(self._source) + Fraction(start)
        self._begin = -math.inf if start <= 0 else Fraction(0)
        self._end = math.inf if stop is None else Fraction(stop) - Fraction(start)
        self._packets = self._in_range()
        self._next = next(self._packets, None)

    def _add(self, stream: av.AudioStream) -> av.AudioStream:
        copy = self._output.add_stream_from_template(stream)
        if "language" in stream.metadata:
            copy.metadata["language"] = stream.metadata["language"]
        return copy

    def _in_range(self) -> Iterator[tuple[Fraction, av.Packet]]:
        """(seconds since the start of the range, packet moved to that time), in file order."""
        if not self._streams:
            return
        wanted = [self._source.streams[index] for index in self._streams]
        finished: set[int] = set()
        for packet in self._packets_of(wanted):
            index = packet.stream.index
            assert packet.pts is not None and packet.dts is not None
            time = packet.pts * packet.time_base - self._origin
            if time >= self._end:
                finished.add(index)
                if len(finished) == len(wanted):
                    return
            elif time >= self._begin:
                shift = round(self._origin / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._streams[index]
                yield time, packet

    def _packets_of(self, streams: list[av.stream.Stream]) -> Iterator[av.Packet]:
        try:
            for packet in self._source.demux(streams):
                if packet.dts is not None and packet.pts is not None:
                    yield packet
        except (av.FFmpegError, OSError):
            log.warning("audio of %s is damaged and was copied up to there", self._source.name)

    def advance(self, seconds: float = math.inf) -> None:
        """Write the packets that start before `seconds` of output time."""
        while self._next is not None and self._next[0] < seconds:
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._source.close()


def storable_streams(path: str, muxer: str) -> list[int]:
    """Indices of the audio streams of a file that a container can hold; warns of the others.

    Tried with the first packet in memory: some muxers refuse only when they write the trailer,
    and then the video would be lost with the audio.
    """
    with open_container(path) as source:
        indices = [stream.index for stream in source.streams.audio]
    storable = [index for index in indices if _takes(muxer, path, index)]
    if len(storable) < len(indices):
        number = len(indices) - len(storable)
        log.warning("audio dropped: %s cannot hold %d of the tracks of %s", muxer, number, path)
    return storable


def _takes(muxer: str, path: str, index: int) -> bool:
    try:
        with open_container(path) as source, av.open(io.BytesIO(), "w", format=muxer) as trial:
            stream = source.streams[index]
            copy = trial.add_stream_from_template(stream)
            packet = next(source.demux(stream))
            packet.stream = copy
            trial.mux(packet)
        return True
    except (ValueError, OSError, av.FFmpegError):
        return False


def _video_start(source: av.container.InputContainer) -> Fraction:
    for stream in source.streams.video:
        if stream.start_time is not None and stream.time_base is not None:
            return stream.start_time * stream.time_base
    return Fraction(0)
