"""The noise is one endless field of independent standard normals, whichever window is asked for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import KernelChoiceError, gaussian_noise, native
from dtg_restore.kernels.gaussian_noise import philox

IMPLEMENTATIONS = [
    "reference",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing())),
    ),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


def correlation(a: Tensor, b: Tensor) -> float:
    return (a.double() * b.double()).mean().item()  # of standard normals


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that the authors of the generator publish
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (torch.tensor([c]) for c in counter)
    got = philox((c0, c1, c2, c3), key[0] | key[1] << 32)
    assert tuple(int(w) for w in got) == words


def test_first_values_by_hand(implementation: str) -> None:
    u = [(w + 0.5) / 2**32 for w in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]
    want = []
    for u0, u1 in (u[:2], u[2:]):
        r = math.sqrt(-2 * math.log(u0))
        want += [r * math.cos(2 * math.pi * u1), r * math.sin(2 * math.pi * u1)]
    got = gaussian_noise(0, 0, 1, 1, 1, 4, device="cpu", implementation=implementation)
    torch.testing.assert_close(got.flatten(), torch.tensor(want), rtol=2**-23, atol=0)


def test_window_does_not_matter(implementation: str) -> None:
    whole = gaussian_noise(
        3, -2, 7, 3, 20, 31, device="cpu", y0=-5, x0=-6, implementation=implementation
    )
    for t, y, x, num_frames, height, width in [
        (0, 0, 0, 7, 20, 31),
        (3, 4, 5, 2, 7, 9),
        (6, 19, 30, 1, 1, 1),
        (1, 0, 6, 5, 20, 4),
        (2, 11, 7, 1, 3, 22),
    ]:
        window = gaussian_noise(
            3,
            t - 2,
            num_frames,
            3,
            height,
            width,
            device="cpu",
            y0=y - 5,
            x0=x - 6,
            implementation=implementation,
        )
        assert torch.equal(window, whole[:, t : t + num_frames, y : y + height, x : x + width])
    fewer = gaussian_noise(
        3, -2, 7, 2, 20, 31, device="cpu", y0=-5, x0=-6, implementation=implementation
    )
    assert torch.equal(fewer, whole[:2])


def test_moments(implementation: str) -> None:
    z = gaussian_noise(11, 0, 16, 4, 128, 128, device="cpu", implementation=implementation).double()
    num = z.numel()  # 2^20; each bound is five standard errors
    assert abs(z.mean()) < 5 / math.sqrt(num)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / num)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / num)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / num)
    assert 4.3 < z.abs().max() < 6.7


def test_distribution_is_normal(implementation: str) -> None:
    z = gaussian_noise(12, 5, 8, 2, 128, 128, device="cpu", implementation=implementation)
    z = z.double().flatten().sort().values
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    empirical = (torch.arange(len(z), dtype=torch.float64) + 0.5) / len(z)
    assert (cdf - empirical).abs().max() < 1.95 / math.sqrt(len(z))  # Kolmogorov, 0.1 %


@pytest.mark.parametrize("axis", ["channel", "frame", "y", "x", "x by 2", "x by 3", "x by 4"])
def test_neighbours_are_independent(implementation: str, axis: str) -> None:
    z = gaussian_noise(13, 0, 8, 8, 64, 64, device="cpu", implementation=implementation)
    dim, by = {"channel": (0, 1), "frame": (1, 1), "y": (2, 1), "x": (3, 1)}.get(axis, (3, 0))
    by = by or int(axis[-1])
    a, b = z.narrow(dim, 0, z.shape[dim] - by), z.narrow(dim, by, z.shape[dim] - by)
    bound = 5 / math.sqrt(a.numel())
    assert abs(correlation(a, b)) < bound
    assert abs(correlation(a**2 - 1, b**2 - 1) / 2) < bound


@pytest.mark.parametrize("other", [1, 2**31, 2**32, 2**63, -1])
def test_seeds_are_independent(implementation: str, other: int) -> None:
    a, b = (
        gaussian_noise(seed, 0, 4, 4, 64, 64, device="cpu", implementation=implementation)
        for seed in (0, other)
    )
    assert not torch.equal(a, b)
    assert abs(correlation(a, b)) < 5 / math.sqrt(a.numel())


def test_coordinates_do_not_stand_for_one_another(implementation: str) -> None:
    """No two of frame, channel, y and x are folded into one number."""
    z = gaussian_noise(1, 0, 4, 4, 16, 16, device="cpu", implementation=implementation)
    assert len(z.unique()) > 0.999 * z.numel()


def test_shape_dtype_and_device() -> None:
    z = gaussian_noise(1, 0, 5, 3, 6, 7, device=torch.device("cpu"))
    assert z.shape == (3, 5, 6, 7)
    assert z.dtype == torch.float32
    assert z.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_the_cpu() -> None:
    on_gpu = gaussian_noise(5, 3, 4, 8, 60, 104, device="cuda").cpu()
    on_cpu = gaussian_noise(5, 3, 4, 8, 60, 104, device="cpu")
    torch.testing.assert_close(on_gpu, on_cpu, rtol=2**-22, atol=1e-9)


@pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))
def test_native_names_the_device_it_cannot_use() -> None:
    with pytest.raises(KernelChoiceError, match="the device is meta, not cpu"):
        gaussian_noise(1, 0, 1, 1, 1, 1, device="meta", implementation="native")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_frames": -1}, "num_frames must not be negative, got -1"),
        ({"start_frame": 2**31}, "start_frame must lie in"),
        ({"x0": -(2**31) - 1}, "x0 must lie in"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, int], message: str) -> None:
    arguments = {"start_frame": 0, "num_frames": 1, "channels": 1, "height": 1, "width": 1}
    with pytest.raises(ValueError, match=message):
        gaussian_noise(0, **(arguments | changed), device="cpu")
