"""What of a clip goes into another container beside the video."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import av
from av.stream import Discard, Stream

from ..decode.container import first_video, is_cover, open_container
from ..decode.stream_facts import claimed_rates
from .timecode import TIMECODE, later
from .trial import Chapter, keeps_chapters, kept_tags, start_of_video, takes

# Seconds (start, stop), stop None = to the end.
Span = tuple[float | Fraction, float | Fraction | None]

# What is true of a file or of the packets of a stream, and is written anew.
_MADE_BY_MUXERS = re.compile(
    r"(?i)(major_brand|minor_version|compatible_brands|encoder|software|vendor_id|duration|bps"
    r"|number_of_\w+|_statistics_\w+)(-\w+)?"
)
# ISO 639-2 has two codes for some languages, of which FFmpeg's MOV muxer knows but one.
_MOV_LANGUAGES = {
    **{"sqi": "alb", "hye": "arm", "eus": "baq", "mya": "bur", "zho": "chi", "cze": "ces"},
    **{"nld": "dut", "fre": "fra", "kat": "geo", "deu": "ger", "ell": "gre", "isl": "ice"},
    **{"mkd": "mac", "msa": "may", "fas": "per", "rum": "ron", "slo": "slk", "bod": "tib"},
    **{"cym": "wel", "swe": "sve"},
}
_IN_A_LANGUAGE = re.compile(r"(.+)-[a-z]{3}")  # the MOV demuxer gives some tags twice
_ENOUGH_PACKETS = 2000
# Seconds of sound that a decoder may need before the first that is heard.
_PREROLL = Fraction(1, 10)


@dataclass(frozen=True)
class Picture:
    """A cover that is stored as an attachment."""

    name: str
    mime_type: str
    content: bytes


@dataclass(frozen=True)
class Cargo:
    """What a container takes of the clip `path`.

    Parameters
    ----------
    seconds : the range that is taken, on the timeline of the source's video.
    streams : indices of those that are copied packet by packet.
    tags, video_tags : of the file, and of its video stream.
    lost : what it does not take, in words.
    """

    path: str
    seconds: Span
    streams: tuple[int, ...]
    pictures: tuple[Picture, ...]
    chapters: tuple[Chapter, ...]
    tags: Mapping[str, str]
    video_tags: Mapping[str, str]
    lost: tuple[str, ...]


def survey(path: str, muxer: str, seconds: Span = (0, None)) -> Cargo:
    """Find out what FFmpeg's `muxer` holds of a clip."""
    with open_container(path) as source:
        video = first_video(source)
        rate = claimed_rates(video)[0] if video else Fraction(25)
        offered = [s for s in source.streams if s is not video and _is_content(s)]
        packets = _first_packets(source, offered)
        starts = _starts(packets, video_start(source)) if seconds[0] <= 0 else {}
        contents = {index: bytes(packet) for index, packet in packets.items()}
        taken = [s for s in offered if takes(muxer, s, packets.get(s.index))]
        rest = [s for s in offered if s not in taken]
        covers = [s for s in rest if is_cover(s) and s.index in contents and muxer == "matroska"]
        lost = [_describe(s) for s in rest if s not in covers]
        if muxer == "avi" and any(start < -_PREROLL for start in starts.values()):
            lost.append("what starts before the first frame")

        tags = _file_tags(source, rate, seconds)
        kept = kept_tags(muxer, rate, tags)
        lost += [f"tag {key}" for key in tags if key not in kept]
        early = [(s, contents[s.index], starts[s.index]) for s in taken if s.index in starts]
        chapters = _chapters(source, seconds, start_of_video(muxer, early))
        if not keeps_chapters(muxer, chapters):
            lost.append(f"{len(chapters)} chapters")
            chapters = ()
        return Cargo(
            path=path,
            seconds=seconds,
            streams=tuple(s.index for s in taken),
            pictures=tuple(_picture(s, contents[s.index]) for s in covers),
            chapters=chapters,
            tags=kept,
            video_tags=stream_tags(video, muxer) if video else {},
            lost=tuple(lost),
        )


def video_start(source: av.container.InputContainer) -> Fraction:
    """Time stamp of the first frame in seconds."""
    stream = first_video(source)
    if stream is None or stream.start_time is None or stream.time_base is None:
        return Fraction(0)
    return stream.start_time * stream.time_base


def is_cut_away(packet: av.Packet) -> bool:
    """Whether an edit list hides it, and it is not what the decoder of a stream begins with."""
    if not packet.is_discard or packet.pts is None:
        return False
    begin = (packet.stream.start_time or 0) * packet.time_base
    return not begin - _PREROLL <= packet.pts * packet.time_base < begin


def stream_tags(stream: Stream, muxer: str) -> dict[str, str]:
    """Language, title and the like, as `muxer` wants them."""
    tags = {k: v for k, v in stream.metadata.items() if not _MADE_BY_MUXERS.fullmatch(k)}
    tags.pop(TIMECODE, None)
    if "name" in tags:  # what the MOV demuxer calls the title that its muxer writes
        tags.setdefault("title", tags.pop("name"))
    language = tags.get("language", "")
    if muxer == "mov" and language in _MOV_LANGUAGES:
        tags["language"] = _MOV_LANGUAGES[language]
    return tags


def _is_content(stream: Stream) -> bool:
    """Not the tracks that hold the chapters and time codes of MOV files."""
    is_timecode = stream.type == "data" and TIMECODE in stream.metadata
    return stream.discard != Discard.all and not is_timecode


def _first_packets(
    source: av.container.InputContainer, streams: Iterable[Stream]
) -> dict[int, av.Packet]:
    """The first packet of each, as far as they stand near the beginning."""
    missing = [s for s in streams if s.type != "attachment"]
    found: dict[int, av.Packet] = {}
    if missing:
        for packet in islice(source.demux(missing), _ENOUGH_PACKETS):
            if packet.size and not is_cut_away(packet):
                found.setdefault(packet.stream.index, packet)
            if len(found) == len(missing):
                break
    return found


def _starts(packets: Mapping[int, av.Packet], begin: Fraction) -> dict[int, Fraction]:
    """Seconds from the first frame of the video to the packets, of those that precede it."""
    starts = {
        index: packet.pts * packet.time_base - begin
        for index, packet in packets.items()
        if packet.pts is not None and not is_cover(packet.stream)
    }
    return {index: start for index, start in starts.items() if start < 0}


def _describe(stream: Stream) -> str:
    """Such as "subtitle track 3 (mov_text, eng)"."""
    if stream.type == "attachment":
        return f"attachment {stream.name}"
    if is_cover(stream):
        return "cover picture"
    context = stream.codec_context
    codec = context.name if context is not None else "of a format that FFmpeg does not know"
    facts = [codec, *filter(None, [stream.metadata.get("language")])]
    return f"{stream.type} track {stream.index} ({', '.join(facts)})"


def _picture(stream: Stream, content: bytes) -> Picture:
    kind = {"mjpeg": "jpeg"}.get(stream.codec_context.name, stream.codec_context.name)
    suffix = {"jpeg": "jpg"}.get(kind, kind)
    return Picture(
        stream.metadata.get("filename", f"cover.{suffix}"),
        stream.metadata.get("mimetype", f"image/{kind}"),
        content,
    )


def _file_tags(
    source: av.container.InputContainer, rate: Fraction, seconds: Span
) -> dict[str, str]:
    tags = {k: v for k, v in source.metadata.items() if not _MADE_BY_MUXERS.fullmatch(k)}
    for key in list(tags):
        twice = _IN_A_LANGUAGE.fullmatch(key)
        if twice and twice[1] in tags:
            del tags[key]
    found = [tags.pop(key) for key in list(tags) if key.lower() == TIMECODE]
    found += [s.metadata[TIMECODE] for s in source.streams if TIMECODE in s.metadata]
    if found:
        moved = later(found[0], round(Fraction(seconds[0]) * rate), rate)
        tags |= {TIMECODE: moved} if moved else {}
    return tags


def _chapters(
    source: av.container.InputContainer, seconds: Span, video_at: Fraction
) -> tuple[Chapter, ...]:
    """Those of the range, cut to it and moved to where its first frame is shown."""
    begin = video_start(source) + Fraction(seconds[0])
    table = []
    for chapter in source.chapters():
        start = max(chapter["start"] * _unit(chapter) - begin, Fraction(0))
        stop = chapter["end"] * _unit(chapter) - begin
        if seconds[1] is not None:
            stop = min(stop, Fraction(seconds[1]) - Fraction(seconds[0]))
        if start < stop:
            begun, ended = (round((time + video_at) * 1000) for time in (start, stop))
            table.append((begun, ended, chapter["metadata"]))
    return tuple(table)


def _unit(chapter: av.container.Chapter) -> Fraction:
    return chapter["time_base"] or Fraction(1)
