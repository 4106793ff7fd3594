"""Two fields into one progressive frame, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av

from ...errors import InputError

_SMALLEST = 4  # lines and columns that the filter needs


def can_deinterlace(frame: av.VideoFrame) -> bool:
    return min(frame.width, frame.height) >= _SMALLEST


def deinterlaced(
    frames: Iterable[tuple[int, av.VideoFrame]],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Numbered frames, those that are flagged as interlaced deinterlaced, the others untouched.

    A frame is made from its neighbours and itself.  Every run of interlaced frames has a filter of
    its own, so that what comes out does not depend on where decoding began.
    """
    before: tuple[int, av.VideoFrame] | None = None
    weave: _Weave | None = None
    for number, frame in frames:
        flagged = frame.interlaced_frame and can_deinterlace(frame)
        if weave is not None and weave.layout != frame.format.name:
            yield from weave.end()
            weave = before = None
        if weave is not None:
            yield from weave.push(number, frame)
            if flagged:
                continue
            weave = None
        if flagged:
            weave = _Weave(frame)
            if before is not None and before[1].format.name == weave.layout:
                list(weave.push(*before))
            list(weave.push(number, frame))  # the one before has been yielded
        else:
            yield number, frame
        before = (number, frame)
    if weave is not None:
        yield from weave.end()


class _Weave:
    """Gives a frame back when the next one has come."""

    def __init__(self, like: av.VideoFrame):
        self.layout = like.format.name
        self._graph = av.filter.Graph()
        try:
            self._connect(like)
        except (av.FFmpegError, OSError, ValueError):
            raise InputError(f"interlaced {self.layout} frames are not supported") from None
        self._waiting: tuple[int, av.VideoFrame] | None = None

    def _connect(self, like: av.VideoFrame) -> None:
        source = self._graph.add(
            "buffer",
            f"video_size={like.width}x{like.height}:pix_fmt={like.format.name}:"
            f"time_base={like.time_base or '1/1000'}:colorspace={int(like.colorspace)}:"
            f"range={int(like.color_range)}",
        )
        filter_ = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        source.link_to(filter_)
        filter_.link_to(self._graph.add("buffersink"))
        self._graph.configure()

    def push(self, number: int, frame: av.VideoFrame) -> Iterator[tuple[int, av.VideoFrame]]:
        yield from self._exchange(frame)
        self._waiting = (number, frame)

    def end(self) -> Iterator[tuple[int, av.VideoFrame]]:
        yield from self._exchange(None)

    def _exchange(self, frame: av.VideoFrame | None) -> Iterator[tuple[int, av.VideoFrame]]:
        self._graph.push(frame)
        if self._waiting is not None:
            number, original = self._waiting
            shown = self._graph.pull()
            assert isinstance(shown, av.VideoFrame)
            shown.pts, shown.time_base = original.pts, original.time_base  # the filter halves it
            yield number, shown
