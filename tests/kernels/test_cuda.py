"""The CUDA kernels: what they refuse anywhere, and what they compute where there is a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.kernels import dtg_step, native
from dtg_restore.kernels.dispatch import Case
from dtg_restore.kernels.dtg_step import OP

built = pytest.mark.skipif(
    bool(native.missing() or native.library().cuda_missing),
    reason="the native library has no CUDA kernels",
)
DTYPES = tuple(native.DTYPE_CODES)

# Arguments that are fine, but for being addresses of nothing; nothing is computed.
EMPTY = {
    "dtg_step": {"x": 0, "v_cond": 0, "v_uncond": 0, "table": 16, "row": 0, "out": 0, "num": 0}
    | {"v_dtype": 0, "stream": 0},
    "tile_blend": {"values": 0, "origins": 0, "window_y": 0, "window_x": 0, "out": 0}
    | {"shape": (0, 0, 4, 4), "size": (8, 8), "dtype": 0, "stream": 0},
    "causal_conv3d": {"past": 0, "chunk": 0, "out": 16, "shape": (0, 1, 4, 4, 8)}
    | {"past_frames": 1, "front": 2, "padding": (1, 1, 1, 1), "dtype": 0, "stream": 0},
}


def run(name: str, **arguments: Any) -> None:
    getattr(native.library().cuda, name)(**(EMPTY[name] | arguments))


@built
@pytest.mark.parametrize("name", EMPTY)
def test_nothing_is_launched_for_nothing(name: str) -> None:
    run(name)


@built
@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("dtg_step", {"num": -1}, "num must not be negative, got -1"),
        ("dtg_step", {"num": 1}, "x, v_cond and out must not be null"),
        ("dtg_step", {"table": 0}, "table must not be null"),
        ("dtg_step", {"v_dtype": 3}, r"dtype must be 0 \(fp32\), 1 \(bf16\) or 2 \(fp16\), got 3"),
        ("tile_blend", {"shape": (0, -1, 4, 4)}, "shape must not be negative"),
        ("tile_blend", {"size": (8, -1)}, "size must not be negative"),
        ("tile_blend", {"shape": (0, 1, 4, 4)}, "out must not be null"),
        ("tile_blend", {"shape": (1, 1, 4, 4), "out": 16}, "values, origins, window_y and window"),
        ("tile_blend", {"shape": (10**5, 0, 4, 4)}, "too many tiles or planes"),
        ("tile_blend", {"size": (8, 10**6)}, "too large a side"),
        ("tile_blend", {"dtype": -1}, "dtype must be"),
        ("causal_conv3d", {"shape": (1, 1, 4, 4, -8)}, "shape must not be negative"),
        ("causal_conv3d", {"padding": (0, 0, -1, 0)}, "padding must not be negative"),
        ("causal_conv3d", {"past_frames": 3}, r"past_frames must be in 0 .. front"),
        ("causal_conv3d", {"shape": (1, 1, 4, 4, 8)}, "past must not be null"),
        ("causal_conv3d", {"shape": (1, 1, 4, 4, 8), "past": 16}, "chunk must not be null"),
        ("causal_conv3d", {"out": 0}, "out must not be null"),
        ("causal_conv3d", {"dtype": 3}, "dtype must be"),
    ],
)
def test_binding_checks_what_it_can(name: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(name, **changed)


@built
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("dtg_step", {"x": 16, "v_cond": 16, "out": 16, "num": 4}),
        ("tile_blend", {"shape": (0, 1, 4, 4), "out": 16}),
        ("causal_conv3d", {"shape": (1, 1, 4, 4, 8), "past": 16, "chunk": 16}),
    ],
)
def test_a_launch_that_fails_says_why(name: str, changed: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match=f"{name}: .*(CUDA|device)"):
        run(name, **changed)


class Library:
    """A native library with, or without, CUDA kernels."""

    def __init__(self, cuda_missing: str):
        self.cuda_missing = cuda_missing


def test_absence_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "missing", lambda: ["never built"])
    assert native.cuda_missing() == ["never built"]
    monkeypatch.setattr(native, "missing", lambda: [])
    monkeypatch.setattr(native, "library", lambda: Library("built without nvcc"))
    assert native.cuda_missing() == ["the native library was built without nvcc"]
    monkeypatch.setattr(native, "library", lambda: Library(""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert native.cuda_missing() == ["there is no CUDA device"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert native.cuda_missing() == []


def test_old_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 1)
    for capability, reasons in (
        ((7, 5), ["cuda:1 has compute capability 7.5, less than 8.0"]),
        ((8, 0), []),
        ((12, 0), []),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert native.cuda_device_reasons(device) == reasons


gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(native.cuda_missing()), reason="; ".join(native.cuda_missing())),
]
on_gpu = pytest.mark.parametrize("device", [pytest.param(torch.device("cuda", 0), marks=gpu)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@on_gpu
@pytest.mark.parametrize("case", OP.cases, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", OP.tolerance)
def test_dtg_step_gives_the_bits_of_the_reference(
    device: torch.device, dtype: torch.dtype, case: Case
) -> None:
    arguments = case.build(dtype, device)
    if reasons := OP.get("cuda").not_supported_reasons(*arguments):
        pytest.skip("; ".join(reasons))
    got = dtg_step(*arguments, implementation="cuda")
    assert torch.equal(got, dtg_step(*arguments, implementation="reference"))


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtg_step_at_odd_addresses(device: torch.device, dtype: torch.dtype) -> None:
    x, v_cond, v_uncond = (normal(1001, seed=seed).to(device)[1:] for seed in range(3))
    v_cond, v_uncond = (torch.cat([v[:1], v]).to(dtype)[1:] for v in (v_cond, v_uncond))
    arguments = (x, v_cond, v_uncond, torch.tensor([[1.7, -0.7, -0.1]], device=device), 0)
    got = dtg_step(*arguments, implementation="cuda")
    assert torch.equal(got, dtg_step(*arguments, implementation="reference"))


@on_gpu
@pytest.mark.parametrize("implementation", ["cuda", "triton"])
def test_one_graph_serves_every_row(device: torch.device, implementation: str) -> None:
    x, v_cond, v_uncond = (normal(4099, seed=seed).to(device) for seed in range(3))
    table, row = normal(5, 3).to(device), torch.zeros((), dtype=torch.int64, device=device)

    def step() -> Tensor:
        return dtg_step(x, v_cond, v_uncond, table, row, implementation=implementation)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
        row += 1
    row.zero_()
    for index in range(5):
        graph.replay()
        want = dtg_step(x, v_cond, v_uncond, table, index, implementation="reference")
        torch.testing.assert_close(out, want, rtol=1e-6, atol=1e-6)


def blended(values: Tensor, origins: Tensor, windows: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    """Added to `out` (planes, H, W), tile by tile, cut off where it ends."""
    height, width = out.shape[-2:]
    for tile, (y, x), rows, columns in zip(values, origins.tolist(), *windows, strict=True):
        weighted = tile.float() * (rows[:, None] * columns)
        top, left = max(0, -y), max(0, -x)
        part = weighted[:, top : max(top, height - y), left : max(left, width - x)]
        out[:, y + top :, x + left :][:, : part.shape[1], : part.shape[2]] += part
    return out


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_tile_blend(device: torch.device, dtype: torch.dtype) -> None:
    values = normal(40, 15, 9, 17).to(device, dtype)
    origins = torch.tensor([[y, x] for y in range(-3, 20, 3) for x in (-4, 5, 11, 23, 40)])
    windows = normal(40, 9).to(device), normal(40, 17).to(device)
    want = blended(values, origins, windows, torch.zeros(15, 20, 45, device=device))
    origins = origins.to(device, torch.int32)
    for _ in range(2):
        out = torch.full_like(want, torch.nan)
        with native.cuda_stream(device) as stream:
            run(
                "tile_blend",
                **{"values": values.data_ptr(), "origins": origins.data_ptr()},
                **{"window_y": windows[0].data_ptr(), "window_x": windows[1].data_ptr()},
                **{"out": out.data_ptr(), "shape": (40, 15, 9, 17), "size": (20, 45)},
                **{"dtype": native.DTYPE_CODES[dtype], "stream": stream},
            )
        assert torch.equal(out, want)


@on_gpu
@pytest.mark.parametrize("past_frames", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3, 4, 6, 16, 96])
@pytest.mark.parametrize("dtype", DTYPES)
def test_causal_conv3d(
    device: torch.device, dtype: torch.dtype, channels: int, past_frames: int
) -> None:
    past, chunk = (
        normal(2, past_frames + 3, 5, 7, channels).to(device, dtype).split((past_frames, 3), dim=1)
    )
    past, chunk = past.contiguous(), chunk.contiguous()
    before = chunk.new_zeros(2, 2 - past_frames, 5, 7, channels)
    want = F.pad(torch.cat([before, past, chunk], dim=1), (0, 0, 1, 2, 0, 1))
    out = torch.full_like(want, torch.nan)
    with native.cuda_stream(device) as stream:
        run(
            "causal_conv3d",
            **{"past": past.data_ptr(), "chunk": chunk.data_ptr(), "out": out.data_ptr()},
            **{"shape": (2, 3, 5, 7, channels), "past_frames": past_frames, "front": 2},
            **{"padding": (0, 1, 1, 2), "dtype": native.DTYPE_CODES[dtype], "stream": stream},
        )
    assert torch.equal(out, want)
