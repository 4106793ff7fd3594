"""`dtg-restore export`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.errors import ConfigError, Interrupted
from .config_file import Config, SaveConfig, save_file
from .options import OWN, SETTINGS, Debug, Offline, Progress, parse_size
from .progress import Form, Status, make_reporter
from .signals import Stopped
from .text import duration, plural, size

if TYPE_CHECKING:
    from ..export.build import Built

_MODELS, _SHAPES, _TENSORRT = "Models", "Shapes", "TensorRT"
_MACHINE, _OUTPUT = "Machine", "Output"


def _setting(group: str, name: str, **changes: Any) -> Any:
    """An option with the looks of a setting of `restore`."""
    metavar, text = SETTINGS[group][name]
    given = {"metavar": metavar, "help": text, "rich_help_panel": group, "show_default": True}
    return typer.Option(f"--{name.replace('_', '-')}", **(given | changes))


def _switch(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=_TENSORRT)


def export(
    context: typer.Context,
    backbone: Annotated[str, _setting(_MODELS, "backbone")] = "mini",
    vae: Annotated[str, _setting(_MODELS, "vae")] = "auto",
    sr: Annotated[str, _setting(_MODELS, "sr")] = "mini-x2",
    prompt: Annotated[
        str | None, _setting("Guidance", "prompt", rich_help_panel=_MODELS, show_default=OWN)
    ] = None,
    negative_prompt: Annotated[
        str | None,
        _setting("Guidance", "negative_prompt", rich_help_panel=_MODELS, show_default=OWN),
    ] = None,
    prompt_embeds: Annotated[
        str | None,
        _setting(
            _MODELS,
            "prompt_embeds",
            help="Prompts as `dtg-restore embed` has written them: no text encoder is needed.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="onnx|ort|aot|tensorrt",
            help="What will execute it: ONNX Runtime, AOTInductor or TensorRT; onnx is files that "
            "any of them can be made of.",
            rich_help_panel=_MACHINE,
        ),
    ] = "ort",
    device: Annotated[str, _setting(_MACHINE, "device")] = "auto",
    dtype: Annotated[
        str,
        _setting(
            _MACHINE,
            "dtype",
            metavar="auto|fp32|bf16|fp16|fp8",
            help="Precision of the networks; auto is fp32 on a CPU, fp8 needs --calibrate.",
        ),
    ] = "auto",
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="CLIP",
            help="A clip of the usual kind, on which the ranges of fp8 are measured.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Opset of ONNX, 20 to 23.",
            show_default="20",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    offline: Offline = False,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="WxH[,WxH...]",
            help="Sizes of tiles in pixels, the preferred one first.",
            show_default=OWN,
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames that are refined together.",
            show_default=OWN,
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="Numbers of tiles in one call, times two where it has both branches; each one is "
            "compiled.",
            show_default="the backbone's tiles at once, and twice as many",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    vae_tile: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Size in pixels that the codec works on.",
            show_default="the first --tile",
            rich_help_panel=_SHAPES,
        ),
    ] = None,
    refit: Annotated[
        bool, _switch("refit", "Weights can be replaced without a new build.")
    ] = False,
    weight_streaming: Annotated[
        bool, _switch("weight-streaming", "Weights may wait in the host's memory.")
    ] = False,
    hardware_compatible: Annotated[
        bool, _switch("hardware-compatible", "Runs on any GPU from Ampere on.")
    ] = False,
    version_compatible: Annotated[
        bool, _switch("version-compatible", "Runs with later versions of TensorRT.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="BUNDLE",
            help="Folder of the bundle.",
            show_default="in the cache alone",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace another bundle.", rich_help_panel=_OUTPUT),
    ] = False,
    progress: Progress = "auto",
    debug: Debug = False,
    config_files: Config = None,
    save_config: SaveConfig = None,
) -> None:
    """Compile a backbone, its codec and a super-resolution model into a bundle, for `restore
    --bundle`.  What was compiled before is taken from the cache."""
    from ..export.request import ExportRequest

    request = ExportRequest(
        backbone=backbone,
        vae=vae,
        vae_tile=parse_size("vae_tile", vae_tile),
        sr=sr,
        to=to,
        tile=parse_sizes(tile),
        chunk=chunk,
        batch=parse_counts(batch),
        dtype=dtype,
        device=device,
        opset=opset,
        prompt=prompt,
        negative_prompt=negative_prompt,
        prompt_embeds=prompt_embeds,
        calibrate=calibrate,
        refit=refit,
        weight_streaming=weight_streaming,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
    )
    if output == "":
        raise ConfigError("--output is empty: the path of a folder is expected")
    if save_config is not None:
        save_file(save_config, context)
    with make_reporter(progress, FORM) as reporter:
        from ..export.build import build_bundle

        reporter.begin()
        try:
            built = build_bundle(
                request,
                reporter,
                target=None if output is None else Path(output),
                overwrite=overwrite,
                cancel=context.obj.requested,
            )
        except (Stopped, Exception) as error:
            # Torch's tracer turns a signal that falls into it into errors of its own.
            if not (reason := context.obj.reason):
                raise
            raise Interrupted(f"{reason}: {output or 'the bundle'} was not written") from error
        reporter.finish(report_of(built))


@dataclass(frozen=True)
class ExportStatus(Status):
    """Where an export stands; `progress` is a `Step`."""

    def text(self) -> str:
        p = self.progress
        of = f"{p.component} ({min(p.done + 1, p.total)} of {p.total})  " if p.component else ""
        return f"{of}ETA {duration(self.eta)}"

    def data(self) -> dict[str, Any]:
        return self.progress._asdict() | {
            "eta_seconds": self.eta,
            "elapsed_seconds": round(self.elapsed, 3),
        }


def report_of(built: Built) -> dict[str, Any]:
    manifest = built.manifest
    return {
        "bundle": str(built.folder),
        "key": manifest.key,
        "was_cached": built.was_cached,
        "runtime": manifest.runtime,
        "device": manifest.device,
        "precision": manifest.precision,
        "components": list(manifest.components),
        "bytes": sum(facts.bytes for facts in manifest.files.values()),
        "seconds": manifest.made_with["seconds"],
    }


def summary(report: dict[str, Any]) -> list[str]:
    made = "from the cache" if report["was_cached"] else f"built in {duration(report['seconds'])}"
    return [
        f"{report['bundle']}: {plural(len(report['components']), 'component')} for "
        f"{report['runtime']} in {report['precision']} on {report['device']}, "
        f"{size(report['bytes'])}, {made}"
    ]


FORM = Form("export", ExportStatus, summary)


def parse_sizes(text: str | None) -> tuple[tuple[int, int], ...] | None:
    """ "96x64,32x32" as ((96, 64), (32, 32))."""
    if text is None:
        return None
    sizes = [parse_size("tile", part) for part in text.split(",")]
    return tuple(size for size in sizes if size is not None)


def parse_counts(text: str | None) -> tuple[int, ...] | None:
    """ "1,2" as (1, 2)."""
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d{1,6}(\s*,\s*\d{1,6})*\s*", text):
        raise ConfigError(f"batch is {text!r}: N or N,N is expected, such as 1,2")
    return tuple(int(part) for part in text.split(","))
