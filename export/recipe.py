"""A request with everything decided: devices, shapes, prompts, sources.  No weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..engine.backbones import locate
from ..engine.backbones.base import BackboneFacts, Bucket
from ..engine.backbones.locate import Located
from ..engine.backbones.mini import TAGS
from ..engine.bundle.hashes import source_sha256
from ..engine.bundle.machine import needs_of
from ..engine.bundle.manifest import is_bundle
from ..engine.checkpoint import weights_file
from ..engine.codecs.choice import find_wan_codec
from ..engine.config import RestoreConfig
from ..engine.devices import DTYPES, named_out_of_memory, resolve_device, resolve_dtype
from ..engine.errors import ConfigError, EngineError
from ..engine.plan import round_frames
from ..engine.runtimes import ort
from ..engine.runtimes.tensorrt import library
from ..engine.sr import SR, sr_facts
from ..engine.text.embeds import Embeds
from ..engine.tiling import round_up
from .request import OPSETS, TENSORRT_ONLY, ExportRequest
from .stages import EXPORTED
from .tensorrt import TensorRTOptions


@dataclass(frozen=True)
class Source:
    """Weights on this machine."""

    path: Path
    sha256: str

    def describe(self) -> dict[str, str]:
        return {"path": str(self.path.absolute()), "sha256": self.sha256}


@dataclass(frozen=True)
class Recipe:
    """Parameters
    ----------
    config : with which the models are loaded.
    precision : "fp32", "bf16", "fp16" or "fp8"; `dtype` is what the networks are loaded in.
    facts : of the backbone, with the buckets that are made and the prompts that are given.
    codec_tile : (width, height) in pixels; None where the codec has no network.
    sources : "backbone", "codec" and "sr", those that there are.
    prompts : embeddings of both prompts, of a backbone that takes text.
    needs : what a machine must have to execute the bundle.
    tensorrt : how plans are built, where they are.
    """

    request: ExportRequest
    config: RestoreConfig
    device: torch.device
    dtype: torch.dtype
    precision: str
    opset: int
    facts: BackboneFacts | None
    codec_tile: tuple[int, int] | None
    sources: dict[str, Source]
    prompts: tuple[Embeds, Embeds] | None
    needs: dict[str, Any]
    tensorrt: TensorRTOptions | None = None

    @property
    def text_tokens(self) -> int | None:
        """Of the longer of the two prompts."""
        if self.prompts is None:
            return None
        return max(tensor.shape[1] for part in self.prompts for tensor in part.values())


def make_recipe(request: ExportRequest) -> Recipe:
    """Decide what a request leaves open, and take the hashes of what it names.

    The text encoder runs where prompts are needed that no file and no cache holds.

    Raises
    ------
    ConfigError : a setting does not suit the models.
    EngineError : weights, the device or the text encoder are not there.
    """
    device = resolve_device(request.device)
    dtype = resolve_dtype("auto" if request.dtype == "fp8" else request.dtype, device)
    name = next(name for name, value in DTYPES.items() if value == dtype)
    config = _config(request, str(device), name)
    opset = request.opset or OPSETS[0]
    sources: dict[str, Source] = {}
    facts = codec_tile = prompts = None
    if request.backbone != "none":
        found = _located(request)
        facts = _facts(request, found)
        sources["backbone"] = _source(found.path)
        if found.family == "wan":
            sources["codec"] = _source(find_wan_codec(found.path, request.vae))
            codec_tile = _rounded(request.vae_tile or facts.buckets[0], facts.codec.pixels)
            with named_out_of_memory():
                source = found.load().prompts(found.path, config, device)
                prompts = source.get(facts.prompt, facts.negative_prompt)
    if request.sr != "none":
        sr_facts(request.sr)  # whose errors say more than those of a hash
        if request.sr not in SR and is_bundle(request.sr):
            raise ConfigError(f"sr is {request.sr!r}: that is a bundle, which is compiled already")
        sources["sr"] = _source(weights_file(request.sr))
    return Recipe(
        request,
        config,
        device,
        dtype,
        precision="fp8" if request.dtype == "fp8" else name,
        opset=opset,
        facts=facts,
        codec_tile=codec_tile,
        sources=sources,
        prompts=prompts,
        needs=_needs(request, device, opset),
        tensorrt=_tensorrt(request, device, opset),
    )


def _tensorrt(request: ExportRequest, device: torch.device, opset: int) -> TensorRTOptions | None:
    if request.to != "tensorrt":
        return None
    given = {name: getattr(request, name) for name in TENSORRT_ONLY}
    return TensorRTOptions(device=device, opset=opset, **given)


def _needs(request: ExportRequest, device: torch.device, opset: int) -> dict[str, Any]:
    """EngineError where what makes or executes the files is not installed."""
    for package in ("onnx", "onnxscript") if request.to != "aot" else ():
        if find_spec(package) is None:
            raise EngineError(f"{package} is not installed: pip install 'dtg-restore[onnx]'")
    if request.to == "tensorrt":
        library()
        if device.type != "cuda":
            raise EngineError(f"TensorRT computes on GPUs, and the device is {device}")
    if request.to == "ort" and (missing := ort.reasons(device.type)):
        raise EngineError("; ".join(missing))
    needs = needs_of(
        request.to,
        device,
        opset=opset,
        is_version_compatible=request.version_compatible,
        is_hardware_compatible=request.hardware_compatible,
    )
    if request.to == "ort":  # the fused ops of an optimised graph are those of this version
        native = needs_of("ort", device, is_native=True)
        needs["onnxruntime"] = native["onnxruntime"]
    return needs


def _config(request: ExportRequest, device: str, dtype: str) -> RestoreConfig:
    return RestoreConfig(
        backbone=request.backbone,
        vae=request.vae,
        sr=request.sr,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        prompt_embeds=request.prompt_embeds,
        device=device,
        dtype=dtype,
    )


def _located(request: ExportRequest) -> Located:
    found = locate(request.backbone)
    if found.family not in EXPORTED:
        raise EngineError(
            f"{request.backbone} is of the family {found.family}, which has no export: those that "
            f"have one are {', '.join(EXPORTED)}"
        )
    if found.family == "mini":
        for name, served in (("vae", "auto"), ("vae_tile", None), ("prompt_embeds", None)):
            if getattr(request, name) != served:
                value = getattr(request, name)
                raise ConfigError(f"{name} is {value!r}: mini works on pixels and on quality tags")
    return found


def _facts(request: ExportRequest, found: Located) -> BackboneFacts:
    facts = found.load().facts(found.path)
    facts = replace(
        facts,
        prompt=facts.prompt if request.prompt is None else request.prompt,
        negative_prompt=facts.negative_prompt
        if request.negative_prompt is None
        else request.negative_prompt,
    )
    for tag in (facts.prompt, facts.negative_prompt) if found.family == "mini" else ():
        if tag not in TAGS:
            raise ConfigError(
                f"prompt is {tag!r}: for mini it is a quality tag, one of {', '.join(TAGS)}"
            )
    return replace(facts, buckets=_buckets(request, facts))


def _buckets(request: ExportRequest, facts: BackboneFacts) -> tuple[Bucket, ...]:
    """Sizes are rounded up as `restore` does it."""
    multiple, pixels = facts.multiple_of
    chunk = facts.chunk if request.chunk is None else request.chunk
    frames = round_frames(chunk, multiple, facts.frame_offset)
    default = (facts.tile_batch, 2 * facts.tile_batch)  # the second for both branches at once
    batches = tuple(sorted(set(request.batch or default)))
    sizes = dict.fromkeys(_rounded(size, pixels) for size in request.tile or (facts.tile,))
    return tuple(Bucket(frames, height, width, batches) for width, height in sizes)


def _rounded(size: tuple[int, int] | Bucket, multiple: int) -> tuple[int, int]:
    width, height = (size.width, size.height) if isinstance(size, Bucket) else size
    return round_up(width, multiple), round_up(height, multiple)


def _source(path: Path) -> Source:
    return Source(path, source_sha256(path))
