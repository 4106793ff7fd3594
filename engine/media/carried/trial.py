"""What a muxer of FFmpeg takes, found out by writing a tiny file in memory and reading it back.

Asking is not enough: some muxers refuse only when they write the trailer, and then the video would
be lost too; others drop in silence.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction

import av
from av.stream import Stream

from ..decode.container import is_cover
from .timecode import TIMECODE

# start and stop in milliseconds, tags
Chapter = tuple[int, int, Mapping[str, str]]
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_REFUSALS = (ValueError, OSError, av.FFmpegError)


def takes(muxer: str, stream: Stream, packet: av.Packet | None) -> bool:
    """Whether `stream` comes back from a file that holds it and its first packet, if it has one.

    The packet can be muxed no more afterwards.
    """
    file = io.BytesIO()
    try:
        with _file_with_video(file, muxer) as trial:
            copy = add_copy(trial, stream)
            if packet is not None:
                packet.stream, packet.pts, packet.dts = copy, 0, 0
                trial.mux(packet)
        if packet is None and stream.type != "attachment":
            return True  # a track without packets need not be written
        with _read(file) as back:
            return any(_alike(stream, other) for other in list(back.streams)[1:])
    except _REFUSALS:
        return False


def start_of_video(muxer: str, early: Sequence[tuple[Stream, bytes, Fraction]]) -> Fraction:
    """When a file shows its first frame, given what starts before it.

    Matroska has no times below 0: its muxer moves all packets, by less where it notes the delay of
    a codec, and does not move the chapters.

    Parameters
    ----------
    early : streams with their first packets and when those start, in seconds from the first frame.
    """
    if not early:
        return Fraction(0)
    file = io.BytesIO()
    try:
        with _file_with_video(file, muxer) as trial:
            copies = [add_copy(trial, stream) for stream, _, _ in early]
            for copy, (stream, content, start) in zip(copies, early, strict=True):
                packet: av.Packet = av.Packet(content)
                packet.stream, packet.time_base = copy, stream.time_base or Fraction(1)
                packet.pts = packet.dts = round(start / packet.time_base)
                trial.mux(packet)
        with _read(file) as back:
            first = next(back.demux(back.streams.video[0]))
            return (first.pts or 0) * first.time_base
    except _REFUSALS:
        return Fraction(0)


def kept_tags(muxer: str, rate: Fraction, tags: Mapping[str, str]) -> dict[str, str]:
    """Those tags of a file that come back; the case of their names may change."""
    file = io.BytesIO()
    try:
        with _file_with_video(file, muxer, rate) as trial:
            trial.metadata.update(tags)
        with _read(file) as back:
            found = {key.lower() for of in (back, *back.streams) for key in of.metadata}
    except _REFUSALS:
        if TIMECODE not in tags:
            return {}
        # There is no time code at this frame rate.
        return kept_tags(muxer, rate, {k: v for k, v in tags.items() if k != TIMECODE})
    return {key: value for key, value in tags.items() if key.lower() in found}


def keeps_chapters(muxer: str, chapters: Sequence[Chapter]) -> bool:
    file = io.BytesIO()
    try:
        with _file_with_video(file, muxer) as trial:
            set_chapters(trial, chapters)
        with _read(file) as back:
            return len(back.chapters()) == len(chapters)
    except _REFUSALS:
        return False


def add_copy(container: av.container.OutputContainer, stream: Stream) -> Stream:
    """A stream for the packets of `stream`."""
    copy = container.add_stream_from_template(stream)
    copy.disposition = stream.disposition
    if isinstance(copy, av.AudioStream) and copy.layout.name.endswith("channels"):
        # Matroska tells their number alone, and MP4 must know which they are.
        copy.codec_context.layout = _USUAL_LAYOUTS.get(copy.channels, copy.layout)
    return copy


def set_chapters(container: av.container.OutputContainer, chapters: Sequence[Chapter]) -> None:
    container.set_chapters(
        [
            {
                "id": number,
                "start": start,
                "end": stop,
                "time_base": Fraction(1, 1000),
                "metadata": dict(tags),
            }
            for number, (start, stop, tags) in enumerate(chapters, start=1)
        ]
    )


@contextmanager
def _file_with_video(
    file: io.BytesIO, muxer: str, rate: Fraction = Fraction(25)
) -> Iterator[av.container.OutputContainer]:
    """Video first, as in the real file; its one frame need not be decodable."""
    with av.open(file, "w", format=muxer) as container:
        codec = "vp8" if muxer == "webm" else "mpeg4"
        video = container.add_mux_stream(codec, rate=rate, width=16, height=16)
        video.time_base = 1 / rate
        yield container
        packet = av.Packet(bytes(8))
        packet.stream, packet.time_base = video, 1 / rate
        packet.pts, packet.dts, packet.is_keyframe = 0, 0, True
        container.mux(packet)


def _read(file: io.BytesIO) -> av.container.InputContainer:
    file.seek(0)
    return av.open(file, "r")


def _alike(stream: Stream, other: Stream) -> bool:
    return stream.type == other.type and is_cover(stream) == is_cover(other)
