"""What codecs and containers keep: samples, tags of colour, HDR metadata, sampling."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.media import open_reader, open_writer, probe
from dtg_restore.engine.media.encode.packets import codec_header, packets
from dtg_restore.engine.types import HDR, ClipInfo, ColourTags

FPS = Fraction(24)
SIZE = (48, 80)
HDR10 = ColourTags("bt2020", False, 9, 16)
METADATA = HDR(
    primaries=(
        (Fraction(708, 1000), Fraction(292, 1000)),
        (Fraction(170, 1000), Fraction(797, 1000)),
        (Fraction(131, 1000), Fraction(46, 1000)),
        (Fraction(3127, 10000), Fraction(3290, 10000)),
    ),
    luminance=(Fraction(1, 200), Fraction(1000)),
    light_level=(1000, 400),
)

# codec, container, sampling, bits that come back
PLACES = [
    ("h264", "a.mp4", "420", 10),
    ("h264", "a.mkv", "444", 10),
    ("hevc", "a.mov", "420", 10),
    ("hevc", "a.mkv", "422", 10),
    ("vp9", "a.webm", "420", 8),
    ("vp9", "a.mp4", "444", 8),
    ("av1", "a.mp4", "420", 10),
    ("av1", "a.webm", "420", 10),
    ("prores", "a.mov", "422", 10),
    ("prores4444", "a.mov", "444", 12),
    ("prores4444", "a.mkv", "444", 12),
    ("ffv1", "a.mkv", "422", 10),
]


def smooth(height: int = SIZE[0], width: int = SIZE[1]) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 2, height), torch.linspace(0, 3, width), indexing="ij")
    return torch.stack((x.sin(), y.cos(), (x + y).sin())) * 0.2 + 0.5


def write(path: Path, frame: torch.Tensor, **settings: object) -> ClipInfo:
    settings = {"fps": FPS, "colour": HDR10, "bit_depth": 10, **settings}
    with open_writer(path, width=frame.shape[2], height=frame.shape[1], **settings) as writer:
        for _ in range(2):
            writer.write(frame)
    return probe(path)


@pytest.mark.parametrize(("codec", "name", "chroma", "bits"), PLACES)
def test_what_comes_back(tmp_path: Path, codec: str, name: str, chroma: str, bits: int) -> None:
    frame = smooth()
    info = write(tmp_path / name, frame, codec=codec, chroma=chroma, hdr=METADATA)
    assert (info.bit_depth, info.chroma, info.colour) == (bits, chroma, HDR10)
    with open_reader(tmp_path / name) as reader:
        first = next(iter(reader))
    assert (first - frame).abs().mean() < 1.5 / 255


@pytest.mark.parametrize(("codec", "name", "chroma", "_"), PLACES)
def test_hdr_metadata_are_in_the_stream_and_the_container(
    tmp_path: Path, codec: str, name: str, chroma: str, _: int
) -> None:
    info = write(tmp_path / name, smooth(), codec=codec, chroma=chroma, hdr=METADATA)
    assert info.hdr is not None
    assert info.hdr.light_level == METADATA.light_level
    step = Fraction(1, 50000) if codec != "av1" else Fraction(1, 1 << 14)  # fixed point there
    found = [value for point in info.hdr.primaries or () for value in point]
    expected = [value for point in METADATA.primaries or () for value in point]
    assert all(abs(a - b) <= step for a, b in zip(found, expected, strict=True))
    least, greatest = info.hdr.luminance or (0, 0)
    assert abs(least - Fraction(1, 200)) <= step
    assert greatest == 1000
    boxes = (b"mdcv", b"clli") if name.endswith(("mp4", "mov")) else (b"\x55\xd0", b"\x55\xbc")
    assert all(box in (tmp_path / name).read_bytes() for box in boxes)


def test_hdr_metadata_may_be_partial(tmp_path: Path) -> None:
    light = HDR(light_level=(600, 100))
    assert write(tmp_path / "a.mp4", smooth(), codec="hevc", hdr=light).hdr == light
    display = HDR(primaries=METADATA.primaries, luminance=METADATA.luminance)
    assert write(tmp_path / "a.mkv", smooth(), codec="h264", hdr=display).hdr == display
    assert write(tmp_path / "b.mp4", smooth(), codec="h264").hdr is None


def test_hlg_and_full_range_tags(tmp_path: Path) -> None:
    for tags in (ColourTags("bt2020", True, 9, 18), ColourTags("bt601", False, 5, 6)):
        info = write(tmp_path / "a.mp4", smooth(), codec="hevc", colour=tags, overwrite=True)
        assert info.colour == tags


@pytest.mark.parametrize(
    ("codec", "name", "chroma", "size", "message"),
    [
        ("av1", "a.mp4", "444", SIZE, "av1 has no chroma '444'; it has 420"),
        ("h264", "a.mp4", "411", SIZE, "h264 has no chroma '411'; it has 420, 422, 444"),
        ("h264", "a.mp4", "420", (48, 79), "chroma 420 needs even frame sizes, not 79x48"),
        ("prores4444", "a.mov", "422", SIZE, "it has 444"),
        ("prores", "a.mov", "444", SIZE, "it has 422"),
        ("ffv1", "a.avi", "444", SIZE, ".mkv does"),
        ("ffv1", "a.mkv", "rgb", SIZE, "it has 420, 422, 444"),
    ],
)
def test_samplings_that_cannot_be(
    tmp_path: Path, codec: str, name: str, chroma: str, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        write(tmp_path / name, smooth(*size), codec=codec, chroma=chroma)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "prores", "prores4444", "ffv1"])
def test_odd_sizes(tmp_path: Path, codec: str) -> None:
    frame = smooth(31, 49)
    write(tmp_path / "a.mkv", frame, codec=codec)
    with open_reader(tmp_path / "a.mkv") as reader:
        assert (next(iter(reader)) - frame).abs().max() < 6 / 255


def test_lossless_yuv(tmp_path: Path) -> None:
    """The samples of a YUV source come back bit for bit."""
    for bits, name in ((8, "yuv420p"), (10, "yuv422p10le"), (12, "yuv444p12le")):
        path = tmp_path / f"{name}.mkv"
        colour = ColourTags("bt709", False, 1, 1)
        chroma = name[3:6]
        write(path, smooth(), codec="ffv1", chroma=chroma, bit_depth=bits, colour=colour)
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        assert (frame.format.name, frame.color_range, frame.colorspace) == (name, 1, 1)


def test_narrow_frames_do_not_damage_memory(tmp_path: Path) -> None:
    """x265 would write behind a buffer, and the process end some time later."""
    for width in (16, 32, 48):
        for _ in range(3):
            write(tmp_path / "a.mkv", smooth(32, width), codec="hevc", overwrite=True)


def test_what_is_lost_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.avi", smooth(), codec="ffv1", hdr=METADATA)
    write(tmp_path / "a.webm", smooth(), codec="vp9", hdr=METADATA)
    write(tmp_path / "a.mkv", smooth(), codec="ffv1", hdr=METADATA)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].endswith("avi has no place for HDR metadata, primaries and transfer: dropped")
    assert said[1].endswith("vp9 has 8 bits here, the source has 10")


@pytest.mark.parametrize("chroma", ["420", "444"])
def test_same_frames_give_the_same_vp9(tmp_path: Path, chroma: str) -> None:
    frame = torch.rand(3, 128, 192, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
    for name in ("a.webm", "b.webm"):
        write(tmp_path / name, frame, codec="vp9", chroma=chroma)
    assert (tmp_path / "a.webm").read_bytes() == (tmp_path / "b.webm").read_bytes()


@pytest.mark.parametrize(
    ("codec", "decoder"), [("h264", "h264"), ("hevc", "hevc"), ("av1", "libdav1d")]
)
def test_hdr_metadata_are_in_the_stream_itself(tmp_path: Path, codec: str, decoder: str) -> None:
    """As it lies in a part, without a container."""
    settings = {"fps": FPS, "colour": HDR10, "bit_depth": 10, "codec": codec, "hdr": METADATA}
    with open_writer(
        tmp_path / "a.mkv", width=SIZE[1], height=SIZE[0], workspace=tmp_path, **settings
    ) as writer:
        writer.write(smooth())
    (part,) = tmp_path.glob("*.packets")
    context = av.CodecContext.create(decoder, "r")
    context.extradata = codec_header(part)
    frames = [frame for _, data in packets(part) for frame in context.decode(av.Packet(data))]
    frames += context.decode(None)
    kinds = {data.type.name for data in frames[0].side_data}
    assert kinds >= {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}
