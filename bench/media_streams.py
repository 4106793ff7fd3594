"""Which of a clip's other contents each container takes: written by the engine and read back."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import av
import numpy as np
import torch

from ..engine.media import open_writer
from ..engine.media.carried.trial import set_chapters
from ..engine.media.decode.container import is_cover
from ..engine.media.planes import rgb_to_frame
from ..engine.types import ColourTags

CONTAINERS = {".mp4": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9", ".avi": "ffv1"}
AUDIO = {
    "AAC": "aac",
    "AC-3": "ac3",
    "E-AC-3": "eac3",
    "FLAC": "flac",
    "ALAC": "alac",
    "MP3": "libmp3lame",
    "Opus": "libopus",
    "PCM, 16 bit": "pcm_s16le",
    "PCM, 24 bit": "pcm_s24le",
}
SUBTITLES = {"SubRip": "subrip", "ASS": "ass", "WebVTT": "webvtt", "MOV text": "mov_text"}
RATE, SIZE, NUM_FRAMES = Fraction(24), 32, 12
MS = Fraction(1, 1000)
TAGS = {"title": ("title", "A title"), "time code": ("timecode", "01:00:00:00")}
TAGS["other tags"] = ("mood", "calm")


class Source(NamedTuple):
    """A clip with one thing more than its video, and a way to see that thing in a file."""

    path: Path
    look: Callable[[Path], object]


def carried(folder: Path) -> dict[str, dict[str, bool]]:
    """By what it is, then by container: whether it came back the same, packet by packet."""
    table = {}
    for name, source in _sources(folder):
        wanted = source.look(source.path)
        assert wanted, f"the source has no {name}"
        table[name] = {
            suffix: source.look(_copy(source.path, folder / f"copy{suffix}", codec)) == wanted
            for suffix, codec in CONTAINERS.items()
        }
    return table


def _copy(source: Path, target: Path, codec: str) -> Path:
    with open_writer(
        target,
        width=SIZE,
        height=SIZE,
        fps=RATE,
        colour=ColourTags(),
        codec=codec,
        carry_from=source,
        overwrite=True,
    ) as writer:
        for _ in range(NUM_FRAMES):
            writer.write(torch.full((3, SIZE, SIZE), 0.5))
    return target


def _sources(folder: Path) -> Iterator[tuple[str, Source]]:
    clip = partial(_clip, folder)
    for name, codec in AUDIO.items():
        yield f"audio: {name}", Source(clip(audio=[codec]), partial(_content, kind="audio"))
    for name, codec in SUBTITLES.items():
        yield f"subtitles: {name}", Source(clip(text=codec), partial(_content, kind="subtitle"))
    yield "several tracks and their languages", Source(clip(audio=["aac", "ac3"]), _languages)
    yield "attached fonts", Source(clip(attached=("a.ttf", "font/ttf", b"a font")), _fonts)
    yield "cover picture", Source(clip(attached=("cover.jpg", "image/jpeg", jpeg())), _cover)
    yield "chapters", Source(clip(chapters=2), _chapters)
    for name, (key, value) in TAGS.items():
        yield name, Source(clip(tags={key: value}), partial(_tag, key=key))


def _clip(
    folder: Path,
    *,
    audio: Sequence[str] = (),
    text: str | None = None,
    attached: tuple[str, str, bytes] | None = None,
    chapters: int = 0,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A grey video with what is asked for beside it."""
    path = folder / ("source.mov" if text == "mov_text" else "source.mkv")
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=RATE)
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        tracks = [container.add_stream(codec, rate=48000, layout="stereo") for codec in audio]
        for track, language in zip(tracks, ("eng", "jpn"), strict=False):
            track.metadata["language"] = language
        words = container.add_mux_stream(text) if text else None
        if attached:
            container.add_attachment(*attached)
        length = 1000 * NUM_FRAMES // int(RATE)
        ends = [length * i // max(chapters, 1) for i in range(chapters + 1)]
        set_chapters(
            container,
            [(ends[i], ends[i + 1], {"title": f"part {i}"}) for i in range(chapters)],
        )
        container.metadata.update(tags)
        if words is not None:
            words.time_base = MS
            _write_text(container, words, is_mov=text == "mov_text")
        for track in tracks:
            _write_silence(container, track)
        for number in range(NUM_FRAMES):
            frame = rgb_to_frame(torch.full((3, SIZE, SIZE), 0.5), "yuv420p", ColourTags())
            frame.pts, frame.time_base = number, 1 / RATE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def _write_text(
    container: av.container.OutputContainer, stream: av.stream.Stream, is_mov: bool
) -> None:
    for number in range(2):
        line = f"{number},0,Default,,0,0,0,,line {number}".encode()  # a line of ASS is also text
        packet = av.Packet(len(line).to_bytes(2, "big") + line if is_mov else line)
        packet.stream, packet.time_base, packet.is_keyframe = stream, MS, True
        packet.pts = packet.dts = 200 * number
        packet.duration = 150
        container.mux(packet)


def _write_silence(container: av.container.OutputContainer, track: av.AudioStream) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), "s16", "stereo")
    frame.sample_rate, frame.pts = 48000, 0
    resampler = av.AudioResampler(track.format, "stereo", 48000, track.frame_size or 960)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(track.encode(part))
    container.mux(track.encode(None))


def jpeg() -> bytes:
    """A picture whose bytes are the same at every call."""
    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        grey = av.VideoFrame.from_ndarray(np.full((24, 16), 128, np.uint8), format="yuvj420p")
        container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    return file.getvalue()


def _content(path: Path, kind: str) -> bytes:
    """Of the packets, which MOV groups anew for PCM; without its gaps between texts.

    And without what leads a decoder in before the first frame, which AVI has no place for.
    """
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        begin = (video.start_time or 0) * video.time_base - 2 * MS  # Matroska rounds
        streams = [s for s in container.streams if s.type == kind]
        found = [p for p in container.demux(streams) if p.size] if streams else []
        heard = (bytes(p) for p in found if p.pts * p.time_base >= begin)
        return b"".join(content for content in heard if content != bytes(2))


def _languages(path: Path) -> list[str | None]:
    with av.open(str(path)) as container:
        return [stream.language for stream in container.streams.audio]


def _fonts(path: Path) -> list[tuple[str | None, bytes]]:
    with av.open(str(path)) as container:
        return [(stream.name, stream.data) for stream in container.streams.attachments]


def _cover(path: Path) -> bytes | None:
    with av.open(str(path)) as container:
        covers = [stream for stream in container.streams.video if is_cover(stream)]
        return bytes(next(container.demux(covers))) if covers else None


def _chapters(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        return [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]


def _tag(path: Path, key: str) -> str | None:
    with av.open(str(path)) as container:
        held = {
            k.lower(): v for of in (container, *container.streams) for k, v in of.metadata.items()
        }
        return held.get(key)
