"""Opening a container and finding the video in it."""

from __future__ import annotations

import os

import av
from av.stream import Disposition, Stream

from ...errors import InputError

# Demuxers that turn any text into pictures.
_NOT_VIDEO = {"tty", "ansi"}


def open_container(path: str) -> av.container.InputContainer:
    """Open a local file, and nothing that it may refer to over a network.

    Raises
    ------
    InputError : missing, not readable, empty, or in no known format.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path} is empty")
    try:
        # Tags are often in another encoding than they should be.
        container = av.open(
            "file:" + path, options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except (av.FFmpegError, OSError, ValueError):
        raise InputError(f"{path} is not a readable video: unknown format or damaged") from None
    if container.format.name in _NOT_VIDEO:
        container.close()
        raise InputError(f"{path} is not a video")
    return container


def is_cover(stream: Stream) -> bool:
    """Whether it is a picture beside the video, as music files have it."""
    return bool(stream.disposition & Disposition.attached_pic)


def first_video(container: av.container.InputContainer) -> av.VideoStream | None:
    return next((s for s in container.streams.video if not is_cover(s)), None)


def video_stream(container: av.container.InputContainer, path: str) -> av.VideoStream:
    """The first video that is no cover picture.

    Raises
    ------
    InputError : there is none, or its codec is not known.
    """
    stream = first_video(container)
    if stream is None:
        raise InputError(f"{path} holds no video")
    if stream.codec_context is None:
        raise InputError(f"{path}: its video codec is not known")
    return stream


def tells_order_alone(container: av.container.Container) -> bool:
    """Whether the order of its packets is all that it says of times, as in AVI: those of display
    are invented by FFmpeg."""
    return container.format.name == "avi"


def codec_name(stream: av.VideoStream) -> str:
    """Of the format ("av1"), not of the library that decodes it."""
    return stream.codec_context.codec.canonical_name


def has_fragments(path: str) -> bool:
    """Whether an MP4 or MOV holds frames that the index at its head does not know of."""
    size, at = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            if head[4:8] == b"moof":
                return True
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # a box above 4 GiB
                length = int.from_bytes(head[8:], "big")
            if length < 8:  # 0: to the end of the file
                return False
            at += length
    return False
