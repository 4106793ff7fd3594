"""The README shows what is measured."""

from __future__ import annotations

import json

import pytest

from dtg_restore.bench import tables


def test_readme_holds_the_tables_of_the_results() -> None:
    text = (tables.ROOT / "README.md").read_text()
    assert tables.render(text) == text


def test_a_place_that_is_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="quality"):
        tables.render("no table here")


def test_quality_table_has_a_row_for_every_method() -> None:
    result = json.loads((tables.RESULTS / "quality_mini.json").read_text())
    lines = tables.quality(result).splitlines()
    assert len(lines) == 2 + len(result["rows"])
    assert lines[2].startswith("| input | ")
