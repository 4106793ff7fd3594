from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.config import COLOR_MATCHES
from dtg_restore.kernels import color_match, native
from dtg_restore.kernels.color_match import METHODS, OP

IMPLEMENTATIONS = ["reference"] if native.missing() else ["reference", "native"]
SIZE = (2, 3, 45, 70)


def rand(seed: int) -> Tensor:
    return torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("method", METHODS)
def test_nothing_changes_where_both_are_the_same(method: str, implementation: str) -> None:
    x = rand(0)
    assert torch.equal(color_match(x, x.clone(), method, implementation=implementation), x)


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_is_transferred_wholly(method: str, implementation: str) -> None:
    x, shift = rand(0), torch.tensor([0.1, -0.2, 0.05])[:, None, None]
    got = color_match(x, x + shift, method, implementation=implementation)
    torch.testing.assert_close(got, x + shift, rtol=0, atol=1e-6)


def test_wavelet_is_linear(implementation: str) -> None:
    def match(x: Tensor, r: Tensor) -> Tensor:
        return color_match(x, r, "wavelet", implementation=implementation)

    x, r, other_x, other_r = (rand(seed) for seed in range(4))
    got = match(2 * x - 3 * other_x, 2 * r - 3 * other_r)
    want = 2 * match(x, r) - 3 * match(other_x, other_r)
    torch.testing.assert_close(got, want, rtol=0, atol=5e-6)


def test_wavelet_keeps_fine_detail_and_takes_coarse_colour(implementation: str) -> None:
    rows, columns = torch.meshgrid(torch.arange(160.0), torch.arange(160.0), indexing="ij")
    fine = 0.1 * torch.sin(2 * torch.pi * columns / 4).expand(1, 3, -1, -1)
    coarse = 0.3 * torch.sin(2 * torch.pi * rows / 320).expand(1, 3, -1, -1)
    got = color_match(fine, coarse, "wavelet", implementation=implementation)
    middle = (..., slice(40, 120), slice(40, 120))
    torch.testing.assert_close(got[middle], (fine + coarse)[middle], rtol=0, atol=0.01)
    back = color_match(coarse, fine, "wavelet", implementation=implementation)
    assert back[middle].abs().max() < 0.02  # nothing coarse is left, nothing fine has come


def test_a_point_becomes_a_triangle(implementation: str) -> None:
    """(1, 2, 1) / 4 at 1, 2, 4, 8 and 16 places make a triangle of half the width 32."""
    x = torch.zeros(1, 3, 101, 101)
    r = x.clone()
    r[..., 50, 50] = 1
    triangle = (32 - (torch.arange(101.0) - 50).abs()).clamp(min=0) / 32**2
    got = color_match(x, r, "wavelet", implementation=implementation)
    want = (triangle[:, None] * triangle).expand_as(got)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_adain_gives_mean_and_deviation(implementation: str) -> None:
    x, r = rand(0), 0.3 * rand(1).square() + 0.4
    got = color_match(x, r, "adain", implementation=implementation).double()
    wanted = torch.var_mean(r.double(), dim=(2, 3))
    for moment, want in zip(torch.var_mean(got, dim=(2, 3)), wanted, strict=True):
        torch.testing.assert_close(moment, want, rtol=1e-5, atol=1e-7)


def test_a_flat_frame_is_not_stretched(implementation: str) -> None:
    flat, r = torch.full(SIZE, 0.4), rand(1)
    got = color_match(flat, r, "adain", implementation=implementation)
    want = r.double().mean((2, 3), keepdim=True).float().expand(SIZE)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_frames_do_not_see_one_another(method: str, implementation: str) -> None:
    x, r = rand(0), rand(1)
    both = color_match(x, r, method, implementation=implementation)
    alone = color_match(x[1:], r[1:], method, implementation=implementation)
    assert torch.equal(both[1:], alone)


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (2, 63), (63, 64), (33, 65)])
def test_native_at_all_kinds_of_edges(size: tuple[int, int]) -> None:
    clips = torch.rand(2, 2, 3, *size, generator=torch.Generator().manual_seed(0))
    for method in METHODS:
        got = OP(*clips, method, name="native")
        torch.testing.assert_close(got, OP.reference(*clips, method), rtol=0, atol=1.5e-6)


def test_misfits_are_named() -> None:
    x = rand(0)
    with pytest.raises(ValueError, match="method must be one of wavelet, adain, got 'none'"):
        color_match(x, x, "none")
    with pytest.raises(ValueError, match=r"frames must be \(T, 3, H, W\), got \(3, 45, 70\)"):
        color_match(x[0], x[0], "adain")
    with pytest.raises(ValueError, match="frames must be float32 or bfloat16, got torch.float16"):
        color_match(x.half(), x.half(), "adain")
    with pytest.raises(ValueError, match=r"reference is \(1, 3, 45, 70\) on cpu, but frames is"):
        color_match(x, x[:1], "adain")


def test_the_setting_knows_every_method() -> None:
    assert ("none", *METHODS) == COLOR_MATCHES
