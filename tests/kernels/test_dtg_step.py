from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dtg_restore.kernels import KernelChoiceError, dtg_step, native

SHAPE = (1, 3, 2, 5, 7)

needs_native = pytest.mark.skipif(bool(native.missing()), reason="; ".join(native.missing()))


def table(*weights: float) -> Tensor:
    """One row."""
    return torch.tensor([weights])


def normal(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_formula_in_double_precision() -> None:
    x, v_cond, v_uncond = normal(0), normal(1), normal(2)
    want = x.double() - 0.1 * (1.7 * v_cond.double() - 0.7 * v_uncond.double())
    got = dtg_step(x, v_cond, v_uncond, table(1.7, -0.7, -0.1), 0)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", ["reference", "native"])
def test_row_is_a_number_or_a_tensor_of_one(implementation: str) -> None:
    if implementation == "native" and native.missing():
        pytest.skip("; ".join(native.missing()))
    x, v_cond, v_uncond = normal(0), normal(1), normal(2)
    rows = torch.tensor([[1.0, 0.0, -0.3], [1.7, -0.7, -0.1], [3.0, -2.0, -0.2]])
    for row in range(3):
        want = dtg_step(x, v_cond, v_uncond, rows[row : row + 1], 0, implementation="reference")
        for index in (row, torch.tensor(row), torch.tensor([row])):
            got = dtg_step(x, v_cond, v_uncond, rows, index, implementation=implementation)
            assert torch.equal(got, want)


def test_weights_are_those_of_plain_numbers() -> None:
    """A number that meets a float32 tensor is rounded to float32, as it is in the table."""
    x, v_cond, v_uncond = normal(0), normal(1), normal(2)
    want = x + -0.1 * (1.7 * v_cond + -0.7 * v_uncond)
    assert torch.equal(dtg_step(x, v_cond, v_uncond, table(1.7, -0.7, -0.1), 0), want)


@pytest.mark.parametrize(
    ("weights", "row", "message"),
    [
        (table(1, 0, 0).double(), 0, r"table must be \(R, 3\) float32, contiguous, on cpu, got"),
        (torch.zeros(3, 2), 0, r"got torch.float32 \(3, 2\) on cpu"),
        (torch.zeros(3, 4).T, 0, r"contiguous, on cpu, got torch.float32 \(4, 3\)"),
        (torch.zeros(3, 3, device="meta"), 0, r"got torch.float32 \(3, 3\) on meta"),
        (torch.zeros(3, 3), 3, r"row must be in 0 .. 2, got 3"),
        (torch.zeros(3, 3), -1, r"row must be in 0 .. 2, got -1"),
        (torch.zeros(3, 3), torch.tensor(1.0), "row must be one int64 on cpu, got torch.float32"),
        (torch.zeros(3, 3), torch.tensor([1, 2]), r"got torch.int64 \(2,\) on cpu"),
    ],
)
def test_misfits_of_the_table_are_named(weights: Tensor, row: int | Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dtg_step(normal(0), normal(1), None, weights, row)


def test_uncond_of_none_leaves_the_term_out() -> None:
    x, v_cond = normal(0), normal(1)
    assert torch.equal(
        dtg_step(x, v_cond, None, table(1.0, math.nan, -0.1), 0),
        dtg_step(x, v_cond, torch.zeros_like(v_cond), table(1.0, 0.0, -0.1), 0),
    )


def test_dt_of_zero_returns_a_copy() -> None:
    x = normal(0)
    got = dtg_step(x, normal(1), normal(2), table(2.0, -1.0, 0.0), 0)
    assert torch.equal(got, x)
    assert got.data_ptr() != x.data_ptr()


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("elided", [False, True])
def test_native_gives_the_bits_of_the_reference(dtype: torch.dtype, elided: bool) -> None:
    v_uncond = None if elided else normal(2, dtype)
    arguments = (normal(0), normal(1, dtype), v_uncond, table(2.3, -1.3, -0.07), 0)
    assert torch.equal(
        dtg_step(*arguments, implementation="native"),
        dtg_step(*arguments, implementation="reference"),
    )


@needs_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_native_reads_every_16_bit_value(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = torch.zeros(every.shape)
    got = dtg_step(x, every, None, table(1.0, 0.0, 1.0), 0, implementation="native")
    torch.testing.assert_close(got, every.float(), rtol=0, atol=0, equal_nan=True)


@needs_native
def test_native_names_what_it_cannot_take() -> None:
    x, v_cond = torch.zeros(4, 5).mT, torch.zeros(5, 4, dtype=torch.float64)
    with pytest.raises(KernelChoiceError, match="x is not contiguous; v_cond is torch.float64"):
        dtg_step(x, v_cond, None, table(1.0, 0.0, 1.0), 0, implementation="native")


def test_gradient_passes_through() -> None:
    v_cond = normal(1).requires_grad_()
    dtg_step(normal(0), v_cond, None, table(2.0, 0.0, -0.5), 0).sum().backward()
    assert torch.equal(v_cond.grad, torch.full(SHAPE, -1.0))


@pytest.mark.parametrize(
    ("x", "v_cond", "v_uncond", "message"),
    [
        (normal(0).half(), normal(1), None, "x must be float32, got torch.float16"),
        (normal(0), normal(1).int(), None, "v_cond must be a floating-point"),
        (normal(0), normal(1)[..., :3], None, r"v_cond is \(1, 3, 2, 5, 3\) on cpu, but x"),
        (normal(0), normal(1), normal(2)[:, :1], r"v_uncond is torch.float32 \(1, 1, 2, 5, 7\)"),
        (normal(0), normal(1), normal(2).half(), "v_uncond is torch.float16"),
    ],
)
def test_misfits_are_named(
    x: Tensor, v_cond: Tensor, v_uncond: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dtg_step(x, v_cond, v_uncond, table(1.0, 0.0, -0.1), 0)
