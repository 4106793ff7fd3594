"""Every implementation of every registered op against the op's reference, and the op's contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dtg_restore.kernels import OPS
from dtg_restore.kernels.dispatch import Case, Implementation, Op

CPU = torch.device("cpu")
RUNS = [
    pytest.param(
        op, implementation, dtype, case, id=f"{op.name}-{implementation.name}-{dtype}-{case.name}"
    )
    for op in OPS
    for implementation in op.implementations
    for dtype in op.tolerance
    for case in op.cases
]


def tensors(values: Any) -> list[torch.Tensor]:
    """The tensors among arguments, or of a result, which is one or a tuple of them."""
    values = values if isinstance(values, tuple) else (values,)
    return [a for a in values if isinstance(a, torch.Tensor)]


def share_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.numel() > 0


@pytest.mark.parametrize(("op", "implementation", "dtype", "case"), RUNS)
def test_matches_the_reference(
    op: Op, implementation: Implementation, dtype: torch.dtype, case: Case
) -> None:
    arguments = case.build(dtype, CPU)
    if reasons := implementation.not_supported_reasons(*arguments):
        pytest.skip("; ".join(reasons))
    before = [t.clone() for t in tensors(arguments)]

    got = implementation.load()(*arguments)

    want = op.reference(*case.build(dtype, CPU))
    tolerance = op.tolerance[dtype]
    torch.testing.assert_close(got, want, rtol=tolerance.rtol, atol=tolerance.atol)
    assert type(got) is type(want)
    for tensor, copy in zip(tensors(arguments), before, strict=True):
        assert torch.equal(tensor, copy), "an input was written to"
        assert not any(share_memory(result, tensor) for result in tensors(got))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_results_are_memory_of_their_own(op: Op) -> None:
    arguments = op.cases[0].build(torch.float32, CPU)
    for implementation in op.implementations:
        if implementation.not_supported_reasons(*arguments):
            continue
        run = implementation.load()
        first = tensors(run(*arguments))
        kept = [t.clone() for t in first]
        for second in tensors(run(*arguments)):
            assert not any(share_memory(second, t) for t in first)
            second.zero_()
        assert all(map(torch.equal, first, kept))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_result_does_not_depend_on_the_number_of_threads(op: Op) -> None:
    arguments = op.cases[-1].build(torch.float32, CPU)
    implementation = op.choose(*arguments)
    num_threads = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(tensors(implementation.load()(*arguments)))
    finally:
        torch.set_num_threads(num_threads)
    assert all(map(torch.equal, results[0], results[1]))
    assert all(map(torch.equal, results[0], results[2]))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_cases_cover_what_breaks_kernels(op: Op) -> None:
    names = {case.name for case in op.cases}
    assert {"odd sizes", "empty", "production"} <= names
    assert names & {"one frame", "one token", "one step"}
    assert op.cases[-1].name == "production"
    assert len(names) == len(op.cases)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_tolerances_are_tight(op: Op) -> None:
    for dtype, tolerance in op.tolerance.items():
        assert max(tolerance.rtol, tolerance.atol) <= torch.finfo(dtype).eps * 16
