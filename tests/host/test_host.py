"""The library in C++ against the engine in Python, on the same bundles."""

from __future__ import annotations

import ctypes as c
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dtg_restore.engine.bundle.manifest import read_manifest, write_manifest
from dtg_restore.engine.config import DTG, SCHEDULES, SOLVERS, SPACES
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.schedule import nodes

OK, BUG, CONFIG, INPUT, ENGINE, MEMORY, INTERRUPTED = range(7)
NAMES = {
    "guidance": ("dtg", "cfg", "none"),
    "schedule": SCHEDULES,
    "space": SPACES,
    "solver": SOLVERS,
    "branches": ("auto", "batched", "sequential"),
    "color_match": ("none", "wavelet", "adain"),
}
Progress = c.CFUNCTYPE(c.c_int, c.c_double, c.c_void_p)
Clip = Callable[..., Tensor]


class Settings(c.Structure):
    """`dtg_settings`."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        *((name, c.c_int) for name in ("refine", "upscale", "guidance")),
        ("t_start", c.c_double),
        ("steps", c.c_int),
        *((name, c.c_double) for name in ("delta0", "alpha0")),
        ("schedule", c.c_int),
        ("kappa", c.c_double),
        *((name, c.c_int) for name in ("space", "alpha_clip")),
        ("tau_floor", c.c_double),
        ("solver", c.c_int),
        *((name, c.c_double) for name in ("shift", "elide_tol")),
        *((name, c.c_int) for name in ("branches", "color_match")),
        ("seed", c.c_uint64),
        *((name, c.c_int) for name in ("chunk", "overlap", "tile_width", "tile_height")),
        *((name, c.c_int) for name in ("tile_overlap", "tile_batch")),
        *((name, c.c_char_p) for name in ("prompt", "negative_prompt", "prompt_embeds")),
    ]

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            if name in NAMES:
                value = NAMES[name].index(value)
            elif name == "tile":
                self.tile_width, self.tile_height = value
                continue
            setattr(self, name, value.encode() if isinstance(value, str) else value)


class Failure(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Library:
    """The C interface by ctypes."""

    def __init__(self, path: Path):
        self._library = c.CDLL(str(path))
        self._library.dtg_last_error.restype = c.c_char_p

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != OK:
            raise Failure(status, self._library.dtg_last_error().decode())

    def open(self, folder: Path) -> Host:
        handle = c.c_void_p()
        options = (c.c_size_t * 2)(16, 1)  # one thread, as OMP_NUM_THREADS may not be set
        self("dtg_open", str(folder).encode(), options, c.byref(handle))
        return Host(self, handle)

    def close(self, handle: c.c_void_p) -> None:
        self._library.dtg_close(handle)


class Host:
    """An opened bundle."""

    def __init__(self, library: Library, handle: c.c_void_p):
        self._library, self._handle = library, handle

    def settings(self, **values: Any) -> Settings:
        made = Settings(struct_size=c.sizeof(Settings))
        self._library("dtg_settings_default", self._handle, c.byref(made))
        made.set(**values)
        return made

    def restore(self, frames: Tensor, progress: Any = None, **values: Any) -> Tensor:
        """Frames (T, 3, H, W), as `Restorer.restore`."""
        settings, (count, _, *size) = self.settings(**values), frames.shape
        height, width = c.c_int64(), c.c_int64()
        self._library(
            "dtg_output_size",
            *(self._handle, c.byref(settings), *map(c.c_int64, size)),
            *(c.byref(height), c.byref(width)),
        )
        given = frames.permute(0, 2, 3, 1).contiguous()
        out = torch.full((count, height.value, width.value, 3), torch.nan)
        self._library(
            "dtg_restore",
            *(self._handle, c.byref(settings), c.c_void_p(given.data_ptr())),
            *map(c.c_int64, (count, *size)),
            *(c.c_void_p(out.data_ptr()), Progress(progress) if progress else None, None),
        )
        return out.permute(0, 3, 1, 2)

    def close(self) -> None:
        self._library.close(self._handle)


@pytest.fixture(scope="session")
def library(built: Path) -> Library:
    (path,) = (built / "csrc/host").glob("*dtg_host*.so*")
    return Library(path)


@pytest.fixture(scope="session")
def mini_host(library: Library, mini: Path) -> Iterator[Host]:
    host = library.open(mini)
    yield host
    host.close()


@pytest.fixture(scope="session")
def wan_host(library: Library, wan: Path) -> Iterator[Host]:
    host = library.open(wan)
    yield host
    host.close()


def check_equal(host: Host, bundle: Path, frames: Tensor, **settings: Any) -> Tensor:
    """What C++ makes is what Python makes of the frames."""
    got = host.restore(frames, upscale=int("sr" not in settings), **without(settings, "sr"))
    expected = Restorer.open(bundle, **settings).restore(frames)
    assert not got.isnan().any()
    # Where chunks are mixed, torch rounds once or twice, as its processor has it.
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6 if "overlap" in settings else 0)
    return got


def without(settings: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


HEUN = {"solver": "heun", "space": "x0", "schedule": "cosine", "t_start": 0.5, "steps": 3}
MINI: dict[str, dict[str, Any]] = {
    "two chunks, tiles and sr": {"frames": (7, 21, 43), "overlap": 2, "branches": "batched"},
    "heun in x0 space": {"frames": (3, 16, 40), "sr": "none", "branches": "sequential"} | HEUN,
    "velocity space, shifted": {
        **{"frames": (4, 9, 24), "sr": "none", "branches": "batched", "schedule": "linear"},
        **{"space": "velocity", "shift": 3.0, "tau_floor": 0.25, "alpha_clip": True, "alpha0": 3.0},
    },
    "seed, tags and batches": {
        **{"frames": (2, 50, 60), "sr": "none", "branches": "batched", "seed": 2**63 - 1},
        **{"prompt": "degraded", "tile_batch": 3, "tile_overlap": 8, "color_match": "adain"},
    },
    "elided steps": {
        **{"frames": (4, 8, 8), "sr": "none", "branches": "batched", "steps": 8, "t_start": 0.5},
        **{"kappa": 8.0, "elide_tol": 0.05, "color_match": "wavelet"},
    },
    "no guidance": {"frames": (1, 1, 1), "guidance": "none"},
    "cfg of a constant weight": {"frames": (4, 16, 24), "guidance": "cfg", "branches": "batched"},
}


@pytest.mark.parametrize("name", MINI)
def test_mini_as_in_python(mini_host: Host, mini: Path, clip: Clip, name: str) -> None:
    settings = dict(MINI[name])
    frames = clip(*settings.pop("frames"))
    got = check_equal(mini_host, mini, frames, **settings)
    if "sr" in settings:
        assert (got - frames).abs().max() > 0.01


WAN = {"branches": "batched", "t_start": 0.4, "steps": 3, "sr": "none"}


@pytest.mark.parametrize("frames", [(14, 37, 45), (9, 32, 32), (1, 20, 50)])
def test_codec_with_caches_and_experts_as_in_python(
    wan_host: Host, wan: Path, clip: Clip, frames: tuple[int, int, int]
) -> None:
    settings = WAN | {"overlap": 1} if frames[0] > 9 else WAN
    check_equal(wan_host, wan, clip(*frames), **settings)


def test_every_setting_counts(mini_host: Host, clip: Clip) -> None:
    """Or equal frames would prove little."""
    frames, plain = clip(6, 20, 70), {"upscale": 0, "overlap": 2, "t_start": 0.5, "steps": 3}
    first = mini_host.restore(frames, **plain)
    for change in (
        *({"seed": 1}, {"solver": "heun"}, {"space": "velocity"}, {"schedule": "cosine"}),
        *({"overlap": 0}, {"tile_overlap": 0}, {"prompt": "null"}, {"color_match": "adain"}),
        *({"elide_tol": 1.0}, {"shift": 2.0}, {"guidance": "none"}, {"delta0": 0.0}),
    ):
        assert not torch.equal(mini_host.restore(frames, **plain | change), first), change
    assert torch.equal(mini_host.restore(frames, **plain), first)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_to_the_last_bit(mini_host: Host, library: Library, schedule: str) -> None:
    for space, clips, shift, floor, t_start in itertools.product(
        SPACES, (False, True), (1.0, 3.0, 0.7), (0.0, 0.25), (0.16, 0.37, 1.0)
    ):
        values = {"schedule": schedule, "space": space, "alpha_clip": clips, "shift": shift}
        values |= {"tau_floor": floor, "t_start": t_start, "steps": 17, "kappa": 4.3}
        values |= {"delta0": 0.21, "alpha0": 2.7}
        table = (c.c_double * (5 * 18))()
        settings = mini_host.settings(**values)
        library("dtg_schedule", c.byref(settings), table, c.c_int(18))
        assert np.array(table).reshape(18, 5).tolist() == [
            list(node) for node in nodes(DTG(**values))
        ]


def test_program_without_python(built: Path, mini: Path, clip: Clip, tmp_path: Path) -> None:
    """Bytes in, bytes out."""
    frames = (clip(5, 20, 30) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    source, target = tmp_path / "in.rgb", tmp_path / "out.rgb"
    source.write_bytes(frames.numpy().tobytes())
    settings = ["steps=3", "branches=batched", "space=x0", "threads=1", "overlap=0"]
    run(built, mini, source, target, "30", "20", *settings)
    got = np.frombuffer(target.read_bytes(), np.uint8).reshape(5, 40, 60, 3)
    restorer = Restorer.open(mini, steps=3, branches="batched", space="x0", overlap=0)
    assert np.array_equal(got, restorer.restore(frames.numpy()))


def run(built: Path, *arguments: str | Path, status: int = OK) -> str:
    program = built / "restore_raw"
    made = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300)
    assert made.returncode == status, made.stderr
    return made.stderr


def test_program_refuses(built: Path, mini: Path, clip: Clip, tmp_path: Path) -> None:
    source = tmp_path / "in.raw"
    source.write_bytes(clip(2, 8, 8).numpy().tobytes())
    out = tmp_path / "out.raw"
    assert "no whole frames" in run(built, mini, source, out, "7", "8", status=INPUT)
    assert "no bundle" in run(built, tmp_path, source, out, "8", "8", status=ENGINE)
    assert "stepz=3" in run(built, mini, source, out, "8", "8", "stepz=3", status=CONFIG)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0: it must lie between 1 and 1000"),
        ({"t_start": float("nan")}, "t_start"),
        ({"prompt": "sharp"}, "one of clean, degraded, null, not"),
        ({"tile": (64, 64)}, "the bundle has engines for 24x16 pixels of 4 frames"),
        ({"overlap": 3}, "at most half of the chunk"),
        ({"refine": 0, "upscale": 0}, "nothing to do"),
        ({"struct_size": 8}, "struct_size"),
    ],
)
def test_settings_are_checked(
    mini_host: Host, clip: Clip, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(Failure, match=message) as failure:
        mini_host.restore(clip(2, 30, 50), **change)
    assert failure.value.status == CONFIG


def test_empty_clip_is_refused(mini_host: Host, clip: Clip) -> None:
    with pytest.raises(Failure) as failure:
        mini_host.restore(clip(1, 8, 8)[:0])
    assert failure.value.status == INPUT


def test_progress_rises_and_can_cancel(mini_host: Host, clip: Clip) -> None:
    seen: list[float] = []
    mini_host.restore(clip(6, 16, 24), lambda fraction, _: seen.append(fraction) or 0, overlap=2)
    assert seen == sorted(set(seen)) and seen[-1] == 1.0
    with pytest.raises(Failure, match="asked to stop") as failure:
        mini_host.restore(clip(6, 16, 24), lambda fraction, _: fraction > 0.3)
    assert failure.value.status == INTERRUPTED


def flip_a_byte(folder: Path) -> str:
    file = folder / "upscale.pt2"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return "upscale.pt2 is damaged: its SHA-256 differs"


def cut_a_file(folder: Path) -> str:
    file = folder / "upscale.pt2"
    file.write_bytes(file.read_bytes()[:-1])
    return "upscale.pt2 is damaged: it has"


def drop_a_file(folder: Path) -> str:
    (folder / "upscale.pt2").unlink()
    return "upscale.pt2 is damaged: it is missing"


def edit_the_manifest(folder: Path) -> str:
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    return "its sum differs"


def break_the_manifest(folder: Path) -> str:
    file = folder / "manifest.json"
    file.write_text(file.read_text().rstrip()[:-1] + ",}")
    return "invalid JSON"


def change_manifest(folder: Path, **fields: Any) -> None:
    write_manifest(folder, replace(read_manifest(folder), **fields))


def need_another_processor(folder: Path) -> str:
    change_manifest(folder, needs={"isa": ["avx2048"], "torch": ">=99.0"})
    return "isa: the bundle needs avx2048.*torch: the bundle needs >=99.0, here is"


def be_for_another_runtime(folder: Path) -> str:
    change_manifest(folder, needs={"tensorrt": ">=10.3"})
    return "tensorrt: .*built without it"


@pytest.mark.parametrize(
    "harm",
    [
        *(flip_a_byte, cut_a_file, drop_a_file, edit_the_manifest, break_the_manifest),
        *(need_another_processor, be_for_another_runtime),
    ],
)
def test_damaged_bundles_are_refused(
    library: Library, mini: Path, tmp_path: Path, harm: Callable[[Path], str]
) -> None:
    folder = shutil.copytree(mini, tmp_path / "copy")
    message = harm(folder)
    with pytest.raises(Failure, match=message) as failure:
        library.open(folder)
    assert failure.value.status == ENGINE


def test_manifest_with_any_text_keeps_its_sum(library: Library, mini: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(mini, tmp_path / "copy")
    odd = {
        "é\u2028\U0001f600\x7f": ['"\\/\b\f\n\r\t\x01', 1e-7, -0.5, 1e300, 10**15, True, None, {}]
    }
    change_manifest(folder, made_with=odd)
    assert json.loads((folder / "manifest.json").read_text())["made_with"] == odd
    library.open(folder).close()


def test_missing_component_is_named(
    library: Library, mini: Path, clip: Clip, tmp_path: Path
) -> None:
    folder = shutil.copytree(mini, tmp_path / "copy")
    change_manifest(folder, components=without(read_manifest(folder).components, "condition.0"))
    host = library.open(folder)
    with pytest.raises(Failure, match=r"no component condition\.0") as failure:
        host.restore(clip(2, 8, 8))
    assert failure.value.status == ENGINE
    assert host.restore(clip(2, 8, 8), refine=0).shape == (2, 3, 16, 16)
    host.close()
