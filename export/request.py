"""What is to be exported, as data that is checked when it is made; no heavy import."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from ..engine.errors import ConfigError

TARGETS = ("onnx", "ort", "aot", "tensorrt")
DTYPES = ("auto", "fp32", "bf16", "fp16", "fp8")
OPSETS = (20, 23)  # lowest and highest
TENSORRT_ONLY = ("refit", "weight_streaming", "hardware_compatible", "version_compatible")
REFINES = ("tile", "chunk", "batch", "prompt_embeds", "prompt", "negative_prompt")
LARGEST = 100_000  # of a size or a count


@dataclass(frozen=True)
class ExportRequest:
    """Parameters
    ----------
    backbone, vae, vae_tile, sr, prompt, negative_prompt, prompt_embeds : as in `RestoreConfig`.
        The prompts are what a bundle is conditioned on where a run gives none.
    to : "onnx" (files alone), "ort", "aot" or "tensorrt".
    tile : (width, height) of every tile in pixels, the preferred one first; None = the backbone's.
    chunk : frames of a tile; None = the backbone's.
    batch : samples in one call of the backbone, one engine each; None = its tiles at once, and
        twice as many for both branches.
    dtype : of the networks' arithmetic; "auto" is what `RestoreConfig` has.
    device : that it is compiled for.
    opset : of ONNX, 20 to 23; None = the lowest.
    calibrate : a clip that shows the ranges of activations, for "fp8".
    refit, weight_streaming, hardware_compatible, version_compatible : of TensorRT.
    """

    backbone: str = "mini"
    vae: str = "auto"
    vae_tile: tuple[int, int] | None = None
    sr: str = "mini-x2"
    to: str = "ort"
    tile: tuple[tuple[int, int], ...] | None = None
    chunk: int | None = None
    batch: tuple[int, ...] | None = None
    dtype: str = "auto"
    device: str = "auto"
    opset: int | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    prompt_embeds: str | None = None
    calibrate: str | None = None
    refit: bool = False
    weight_streaming: bool = False
    hardware_compatible: bool = False
    version_compatible: bool = False

    def __post_init__(self) -> None:
        _one_of("to", self.to, TARGETS)
        _one_of("dtype", self.dtype, DTYPES)
        if self.tile is not None:
            _listed("tile", self.tile)
            for size in self.tile:
                _size("tile", size)
        if self.vae_tile is not None:
            _size("vae_tile", self.vae_tile)
        if self.chunk is not None:
            _whole("chunk", self.chunk, 1, LARGEST)
        if self.batch is not None:
            _listed("batch", self.batch)
            for count in self.batch:
                _whole("batch", count, 1, LARGEST)
        if self.opset is not None:
            _whole("opset", self.opset, *OPSETS)
        self._check_together()

    def _check_together(self) -> None:
        if self.backbone == self.sr == "none":
            raise ConfigError("backbone and sr are both none: there is nothing to export")
        if self.backbone == "none":
            for name in REFINES:
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} belongs to the refinement, and backbone is none")
        for name in TENSORRT_ONLY:
            if getattr(self, name) and self.to != "tensorrt":
                raise ConfigError(f"{name} is an option of tensorrt, and to is {self.to!r}")
        if self.version_compatible and self.refit:
            raise ConfigError("version_compatible and refit exclude each other")
        if self.opset is not None and self.to == "aot":
            raise ConfigError("opset is of ONNX, and to is 'aot'")
        if self.dtype == "fp8" and self.backbone == "none":
            raise ConfigError("dtype is 'fp8': it is of the backbone, and that is none")
        if (self.dtype == "fp8") != (self.calibrate is not None):
            raise ConfigError("dtype fp8 and calibrate need each other: the clip shows the ranges")
        if self.dtype == "fp8" and self.to == "aot":
            raise ConfigError("dtype is 'fp8': it is written into ONNX files, and to is 'aot'")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, Integral) or not low <= int(value) <= high:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number from {low} to {high}")


def _listed(name: str, values: Any) -> None:
    if not isinstance(values, tuple) or not values:
        raise ConfigError(f"{name} is {values!r}: a tuple of at least one is expected")


def _size(name: str, value: Any) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ConfigError(f"{name} is {value!r}: it must be (width, height)")
    for side in value:
        _whole(name, side, 1, LARGEST)
