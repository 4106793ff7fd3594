"""What a frame has beside its colours: HDR metadata, sampling of chroma, alpha."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from dtg_restore.engine.media import open_reader, probe
from dtg_restore.engine.types import HDR

MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
STAMPS = [1000 * i for i in range(4)]
KNOWN = HDR(
    primaries=(
        (Fraction("0.68"), Fraction("0.32")),
        (Fraction("0.265"), Fraction("0.69")),
        (Fraction("0.15"), Fraction("0.06")),
        (Fraction("0.3127"), Fraction("0.329")),
    ),
    luminance=(Fraction("0.005"), Fraction(1000)),
    light_level=(1000, 400),
)


@pytest.mark.parametrize(
    ("settings", "hdr"),
    [
        (f"master-display={MASTERING}:max-cll=1000,400", KNOWN),
        ("max-cll=1000,400", HDR(light_level=(1000, 400))),
        ("repeat-headers=0", None),
    ],
)
def test_static_metadata(
    tmp_path: Path, encode: Callable[..., Path], settings: str, hdr: HDR | None
) -> None:
    options = {"x265-params": f"log-level=none:{settings}"}
    path = encode(tmp_path / "a.mkv", "libx265", STAMPS, "yuv420p10le", **options)
    assert probe(path).hdr == hdr


@pytest.mark.parametrize(
    ("pix_fmt", "chroma"),
    [
        ("yuv420p", "420"),
        ("yuv422p10le", "422"),
        ("yuv444p", "444"),
        ("yuv440p", "444"),
        ("yuv411p", "422"),
        ("yuv410p", "420"),
        ("gray", "444"),
        ("bgr0", "444"),
    ],
)
def test_chroma(tmp_path: Path, encode: Callable[..., Path], pix_fmt: str, chroma: str) -> None:
    assert probe(encode(tmp_path / "a.mkv", "ffv1", STAMPS, pix_fmt)).chroma == chroma


def hdr10_plus() -> bytes:
    """SEI unit of HEVC with the least metadata of SMPTE ST 2094-40 that is valid."""
    fields = [(0xB5, 8), (0x3C, 16), (1, 16), (4, 8), (1, 8)]  # ITU-T T.35 and version
    fields += [(1, 2), (1000, 27), (0, 1)]  # windows, luminance of the display
    fields += [(100, 17)] * 3 + [(50, 17), (0, 4), (0, 10), (0, 3)]  # of the scene
    bits = "".join(f"{value:0{width}b}" for value, width in fields)
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    body = bytes([4, len(payload)]) + payload + b"\x80"
    for third in (b"\0", b"\1", b"\2", b"\3"):
        body = body.replace(b"\0\0" + third, b"\0\0\3" + third)
    return b"\0\0\1" + bytes([39 << 1, 1]) + body


def test_dynamic_metadata_is_said_to_be_lost_once(
    tmp_path: Path, encode: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    options = {"x265-params": "log-level=none:keyint=1"}
    path = encode(tmp_path / "a.hevc", "libx265", STAMPS, "yuv420p10le", **options)
    units = path.read_bytes().split(b"\0\0\1")
    key_frames = [i for i, unit in enumerate(units) if unit and unit[0] >> 1 in (19, 20)]
    assert len(key_frames) == 4
    for i in key_frames:
        units[i - 1] += hdr10_plus()
    path.write_bytes(b"\0\0\1".join(units))
    with caplog.at_level(logging.WARNING, "dtg_restore"), open_reader(path) as reader:
        assert len(list(reader)) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: frame 0 has HDR10+ metadata, which describe the original: they are dropped"
    ]


def test_alpha_is_said_to_be_lost_once(
    tmp_path: Path, encode: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    options = {"profile": "4444", "alpha_bits": "16"}
    path = encode(tmp_path / "a.mov", "prores_ks", STAMPS, "yuva444p10le", **options)
    with caplog.at_level(logging.WARNING, "dtg_restore"), open_reader(path) as reader:
        assert len(list(reader)) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: frame 0 has an alpha channel: it is dropped"
    ]
