"""The tables of docs/MEDIA.md are true: every format is written and read back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtg_restore.bench import media, tables
from dtg_restore.bench.media_pictures import pictures
from dtg_restore.bench.media_streams import carried

RESULT = json.loads((tables.RESULTS / "media.json").read_text())
# Another build of a codec may round another sample.
LOOSE = {"codec_error": 1.0, "whole": 1.0}


def same(measured: dict[str, Any], shown: dict[str, Any]) -> None:
    """Facts are the same; errors of a codec may be less, or a code value more."""
    assert measured.keys() == shown.keys()
    for name, value in shown.items():
        if name in LOOSE:
            values, found = (
                list(v.values()) if isinstance(v, dict) else [v] for v in (value, measured[name])
            )
            assert all(f <= v + LOOSE[name] for f, v in zip(found, values, strict=True)), name
        elif name in ("conversion", "error"):
            assert measured[name] == pytest.approx(value, abs=0.02), name
        else:
            assert measured[name] == value, name


@pytest.mark.parametrize("form", media.formats(), ids=lambda f: f"{f.codec}{f.suffix}-{f.bits}")
def test_videos(tmp_path: Path, form: media.Format) -> None:
    [shown] = [r for r in RESULT["rows"] if all(r[k] == v for k, v in form._asdict().items())]
    same(media.measure(form, tmp_path), shown)


def test_every_format_is_shown() -> None:
    assert len(RESULT["rows"]) == len(media.formats())


def test_colours_are_as_near_as_samples_can_be() -> None:
    """Grey to a code value; a colour to what half a code value of each Y, Cb and Cr makes."""
    for row in RESULT["rows"]:
        assert max(row["conversion"].values()) <= 1.7, row
        if row["codec_error"] == 0:
            assert row["whole"] == pytest.approx(row["conversion"], abs=1e-3), row


def test_grey_is_within_a_code_value(tmp_path: Path) -> None:
    form = media.Format("h264", ".mp4", 8)
    grey = media.ramps(form.bits, media.HEIGHT)[-1:]
    for coding in media.CODINGS:
        path = tmp_path / "grey.mp4"
        media.write(path, form, grey, coding, overwrite=True)
        with media.open_reader(path) as reader:
            assert media.error(reader, grey, form.bits, media.MARGIN).max() < 0.6


def test_what_goes_along(tmp_path: Path) -> None:
    assert carried(tmp_path) == RESULT["carried"]


def test_pictures(tmp_path: Path) -> None:
    for measured, shown in zip(pictures(tmp_path), RESULT["pictures"], strict=True):
        same(measured, shown)
