"""Between PyAV frames and float32 RGB tensors."""

from __future__ import annotations

import av
import numpy as np
import torch

from ...kernels import rgb_to_yuv, yuv_to_rgb
from ..errors import InputError
from ..types import ColourTags
from .colour import CODE_POINTS, RGB_CODE_POINT, coding, matrix_name, round_to_code

_LIMITED, _FULL = 1, 2  # AVColorRange
_MAX_BITS = 16
# log2 of the (x, y) chroma subsampling and its name in pixel formats
_SAMPLINGS = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (0, 1): "440", (2, 0): "411"}


def bit_depth(layout: av.VideoFormat) -> int:
    """Bits of a sample of a pixel format."""
    return max(component.bits for component in layout.components)


def colour_tags(frame: av.VideoFrame) -> ColourTags:
    """How the samples of `frame` relate to RGB, with the rule of `default_matrix` if untagged."""
    name = frame.format.name
    # FFmpeg's convention: yuvj formats are full range, and so is grey that is not tagged.
    full = frame.color_range == _FULL or name.startswith("yuvj")
    full = full or (name.startswith(("gray", "ya")) and frame.color_range != _LIMITED)
    return ColourTags(
        matrix=matrix_name(int(frame.colorspace), frame.height),
        # RGB samples are always full range; what is written from them as YUV need not be.
        full_range=full and not _holds_rgb(frame.format),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
    )


def chroma_sampling(layout: av.VideoFormat) -> str:
    """ "420", "422" or "444": the coarsest of them that loses nothing; "444" for RGB and grey."""
    if _holds_rgb(layout) or not any(c.is_chroma for c in layout.components):
        return "444"
    shift_x, shift_y = _chroma_shifts(layout)
    if shift_x == 0:
        return "444"
    return "420" if shift_y else "422"


def frame_to_rgb(frame: av.VideoFrame, *, chroma_centred: bool = False) -> torch.Tensor:
    """Decoded frame, any integer pixel format, to RGB (3, H, W) float32 in [0, 1].

    Raises
    ------
    InputError : floating-point samples, or a colour matrix that is not supported.
    """
    bits = bit_depth(frame.format)
    if bits > _MAX_BITS:
        raise InputError(f"pixel format {frame.format.name} is not supported")
    if _holds_rgb(frame.format):
        return _rgb_samples(frame, bits)
    return _planar_yuv(frame, bits, chroma_centred)


def rgb_to_frame(rgb: torch.Tensor, pix_fmt: str, colour: ColourTags) -> av.VideoFrame:
    """RGB (3, H, W) to a tagged frame of `pix_fmt` (planar YUV, planar or packed RGB).

    Values are clamped to [0, 1] and rounded to the nearest code value, once.
    """
    frame = av.VideoFrame(rgb.shape[2], rgb.shape[1], pix_fmt)
    if frame.format.is_rgb:
        _fill_rgb(frame, rgb.clamp(0, 1))
        frame.colorspace, frame.color_range = RGB_CODE_POINT, _FULL
    else:
        _fill_yuv(frame, rgb, colour)
        frame.colorspace = CODE_POINTS[colour.matrix]
        frame.color_range = _FULL if colour.full_range else _LIMITED
    frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    return frame


def _holds_rgb(layout: av.VideoFormat) -> bool:
    return layout.is_rgb or layout.has_palette or layout.is_bit_stream


def _rgb_samples(frame: av.VideoFrame, bits: int) -> torch.Tensor:
    name = frame.format.name
    if name.startswith(("gbrp", "gbrap")) and not frame.format.is_big_endian:
        green, blue, red = (_samples(frame, plane, 1, bits > 8) for plane in range(3))
        return torch.from_numpy(np.stack((red, green, blue))) / _peak(bits)
    if 8 < bits < _MAX_BITS:  # swscale would widen these by truncation
        raise InputError(f"pixel format {name} is not supported")
    # Palette, 1-bit, packed: swscale only moves the samples of 8 and 16 bits, exactly.
    wide = bits > 8
    packed = frame.reformat(format="rgb48le" if wide else "rgb24")
    array = _samples(packed, 0, 3, wide)  # (H, W, 3)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous() / _peak(16 if wide else 8)


def _planar_yuv(frame: av.VideoFrame, bits: int, chroma_centred: bool) -> torch.Tensor:
    colour = colour_tags(frame)
    frame = _to_planar(frame, bits)
    planes = [torch.from_numpy(_view(frame, i, 1, bits > 8)) for i in range(len(frame.planes))]
    if len(planes) < 3:  # grey: one row of chroma serves all rows
        height, width = planes[0].shape
        middle = torch.full((1, width), 1 << (bits - 1), dtype=planes[0].dtype)
        grey = middle.expand(height, width)
        return yuv_to_rgb(planes[0], grey, grey, coding(colour, bits, (0, 0)))
    y, cb, cr = planes[:3]
    shifts = _chroma_shifts(frame.format)
    return yuv_to_rgb(y, cb, cr, coding(colour, bits, shifts), chroma_centred)


def _to_planar(frame: av.VideoFrame, bits: int) -> av.VideoFrame:
    """Same samples, little endian, one component a plane, low bits; alpha is left behind."""
    layout = frame.format
    in_high_bits = layout.name.startswith(("p0", "p2", "p4", "y2"))
    planar = [c.plane for c in layout.components] == list(range(len(layout.components)))
    if planar and not layout.is_big_endian and not in_high_bits:
        return frame  # a fourth plane is alpha and never looked at
    grey = not any(c.is_chroma for c in layout.components)
    name = "gray" if grey else f"yuv{_SAMPLINGS[_chroma_shifts(layout)]}p"
    return frame.reformat(
        format=name if bits <= 8 else f"{name}{bits}le",
        src_color_range=frame.color_range,
        dst_color_range=frame.color_range,
    )


def _chroma_shifts(layout: av.VideoFormat) -> tuple[int, int]:
    """log2 of the (x, y) chroma subsampling."""
    return (
        (256 // layout.chroma_width(256)).bit_length() - 1,
        (256 // layout.chroma_height(256)).bit_length() - 1,
    )


def _view(frame: av.VideoFrame, plane: int, channels: int, wide: bool) -> np.ndarray:
    """A plane's own memory without the padding: (h, w) or (h, w, channels)."""
    p = frame.planes[plane]
    dtype = np.dtype("<u2" if wide else "u1")
    rows = np.frombuffer(memoryview(p), dtype)[: p.height * p.line_size // dtype.itemsize]
    rows = rows.reshape(p.height, -1)[:, : p.width * channels]
    return rows if channels == 1 else rows.reshape(p.height, p.width, channels)


def _peak(bits: int) -> float:
    return float((1 << bits) - 1)


def _samples(frame: av.VideoFrame, plane: int, channels: int, wide: bool) -> np.ndarray:
    return _view(frame, plane, channels, wide).astype(np.float32)


def _fill_rgb(frame: av.VideoFrame, rgb: torch.Tensor) -> None:
    bits = bit_depth(frame.format)
    code = round_to_code(rgb * _peak(bits), bits).numpy()  # (3, H, W)
    name = frame.format.name
    if name.startswith("gbrp"):
        for plane, channel in enumerate((1, 2, 0)):
            _view(frame, plane, 1, bits > 8)[...] = code[channel]
    elif name == "bgr0":
        pixels = _view(frame, 0, 4, False)
        pixels[..., :3], pixels[..., 3] = code[::-1].transpose(1, 2, 0), 0
    else:
        _view(frame, 0, 3, bits > 8)[...] = code.transpose(1, 2, 0)


def _fill_yuv(frame: av.VideoFrame, rgb: torch.Tensor, colour: ColourTags) -> None:
    bits = bit_depth(frame.format)
    shifts = _chroma_shifts(frame.format)
    for plane, values in enumerate(rgb_to_yuv(rgb, coding(colour, bits, shifts))):
        _view(frame, plane, 1, bits > 8)[...] = values.numpy()
