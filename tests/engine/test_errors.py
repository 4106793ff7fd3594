"""Each error has the exit code that the command line promises, and carries what a caller needs."""

from __future__ import annotations

import pytest

from dtg_restore.engine import errors

CODES = {
    "DTGError": 1,
    "ConfigError": 2,
    "InputError": 3,
    "EngineError": 4,
    "OutOfMemory": 5,
    "Interrupted": 6,
}


def test_exit_codes() -> None:
    found = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DTGError)
    }
    kinds_of_input_error = dict.fromkeys(("BeyondEnd", "InTheWay"), CODES["InputError"])
    assert found == CODES | kinds_of_input_error
    assert len(set(CODES.values())) == len(CODES) and 0 not in CODES.values()


@pytest.mark.parametrize("name", CODES)
def test_one_base_class(name: str) -> None:
    error = getattr(errors, name)("what happened")
    assert isinstance(error, errors.DTGError) and str(error) == "what happened"


def test_out_of_memory_suggests_a_tile() -> None:
    assert errors.OutOfMemory("full").suggested_tile is None
    assert errors.OutOfMemory("full", (96, 64)).suggested_tile == (96, 64)
