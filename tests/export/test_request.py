"""Requests are checked when they are made, a line each."""

from __future__ import annotations

from typing import Any

import pytest

from dtg_restore.engine.errors import ConfigError
from dtg_restore.export.request import ExportRequest


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"to": "openvino"}, "to is 'openvino': it must be one of onnx, ort, aot, tensorrt"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"backbone": "none", "sr": "none"}, "nothing to export"),
        ({"backbone": "none", "tile": ((32, 32),)}, "tile belongs to the refinement"),
        ({"backbone": "none", "prompt": "clean"}, "prompt belongs to the refinement"),
        ({"tile": ((0, 32),)}, "tile is 0"),
        ({"tile": ()}, "tile is ()"),
        ({"batch": (1, 0)}, "batch is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"opset": 19}, "opset is 19: it must be a whole number from 20 to 23"),
        ({"opset": 20, "to": "aot"}, "opset is of ONNX"),
        ({"refit": True}, "refit is an option of tensorrt, and to is 'ort'"),
        ({"weight_streaming": True, "to": "aot"}, "weight_streaming is an option of tensorrt"),
        ({"dtype": "fp8"}, "dtype fp8 and calibrate need each other"),
        ({"calibrate": "clip.mkv"}, "dtype fp8 and calibrate need each other"),
        ({"dtype": "fp8", "calibrate": "clip.mkv", "to": "aot"}, "dtype is 'fp8'"),
    ],
    ids=str,
)
def test_what_contradicts_itself(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExportRequest(**settings)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_defaults_and_combinations_that_serve() -> None:
    ExportRequest()
    ExportRequest(backbone="none")
    ExportRequest(sr="none", tile=((32, 32), (64, 64)), batch=(1, 2), chunk=4, opset=23)
    ExportRequest(to="tensorrt", refit=True, hardware_compatible=True)
    ExportRequest(to="onnx", dtype="fp8", calibrate="clip.mkv")
