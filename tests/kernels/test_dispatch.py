from __future__ import annotations

import logging

import pytest
import torch

from dtg_restore import kernels
from dtg_restore.kernels import OPS, KernelChoiceError, dispatch
from dtg_restore.kernels.dispatch import Implementation, Op, Tolerance


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DTG_KERNELS", raising=False)


def op_of(*faster: Implementation) -> Op:
    return Op(
        name="double",
        formula="2 * x",
        reference=lambda x: 2 * x,
        faster=faster,
        tolerance={torch.float32: Tolerance(0, 0)},
        cases=(),
    )


ABSENT = Implementation("absent", lambda: pytest.fail("loaded"), lambda: ["no such library"])
PICKY = Implementation(
    "picky",
    lambda: lambda x: x + x,
    unsupported=lambda x: [] if x.numel() > 1 else ["too small", "too lonely"],
)


def test_first_without_a_reason_is_chosen() -> None:
    op = op_of(ABSENT, PICKY)
    assert op.choose(torch.zeros(2)).name == "picky"
    assert op.choose(torch.zeros(1)).name == "reference"
    assert torch.equal(op(torch.ones(1)), torch.full((1,), 2.0))


def test_asked_for_by_name_and_impossible_lists_all_reasons() -> None:
    op = op_of(ABSENT, PICKY)
    with pytest.raises(KernelChoiceError, match="double: picky .*too small; too lonely"):
        op.choose(torch.zeros(1), name="picky")
    with pytest.raises(KernelChoiceError, match="no such library"):
        op(torch.zeros(1), name="absent")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KernelChoiceError, match="'fast': known are absent, picky, reference"):
        op_of(ABSENT, PICKY).choose(torch.zeros(2), name="fast")


def test_environment_asks_for_all_or_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    op = op_of(PICKY)
    monkeypatch.setenv("DTG_KERNELS", "reference")
    assert op.choose(torch.zeros(2)).name == "reference"
    assert op.choose(torch.zeros(2), name="picky").name == "picky"
    monkeypatch.setenv("DTG_KERNELS", "other=native, double=reference")
    assert op.choose(torch.zeros(2)).name == "reference"
    monkeypatch.setenv("DTG_KERNELS", "other=native")
    assert op.choose(torch.zeros(2)).name == "picky"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dtg_stp=reference", "unknown op 'dtg_stp': known are dtg_step"),
        ("dtg_step=fast", "no implementation 'fast'"),
        ("dtg_step=a=b", "'dtg_step=a=b' is not of the form"),
        ("native,dtg_step=native", "'native' is not of the form"),
    ],
)
def test_environment_is_checked(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("DTG_KERNELS", text)
    with pytest.raises(KernelChoiceError, match=message):
        kernels.check_environment()


@pytest.mark.parametrize("text", ["", "reference", "dtg_step=reference"])
def test_good_environment_passes(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DTG_KERNELS", text)
    kernels.check_environment()


def test_missing_implementation_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "OPS", (op_of(ABSENT),))
    monkeypatch.setenv("DTG_KERNELS", "double=absent")
    with pytest.raises(KernelChoiceError, match="double: absent: no such library"):
        kernels.check_environment()


def test_describe_is_plain_data_with_reasons() -> None:
    assert op_of(ABSENT).describe() == {
        "op": "double",
        "formula": "2 * x",
        "implementations": [
            {"name": "absent", "reasons": ["no such library"], "available": False},
            {"name": "reference", "reasons": [], "available": True},
        ],
    }
    described = kernels.describe()
    assert [row["op"] for row in described["ops"]] == [op.name for op in OPS]
    assert isinstance(described["native"]["available"], bool)


def test_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    dispatch._log_once.cache_clear()
    op = op_of(PICKY)
    with caplog.at_level(logging.DEBUG, logger="dtg_restore"):
        op(torch.zeros(2))
        op(torch.zeros(2))
    assert [r.getMessage() for r in caplog.records] == ["kernel double runs as picky"]
