"""`dtg-restore plan`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..engine.config import TOLERANCES, RestoreConfig
from ..engine.errors import InputError
from .options import Source, with_settings
from .text import duration, number, plural, size


@with_settings
def plan(
    source: Source,
    config: RestoreConfig,
    frames: tuple[int, int] | None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how a clip would be cut and what restoring it costs; no weights are loaded."""
    facts = collect(source, config, frames)
    sys.stdout.write(
        json.dumps(facts, indent=2) + "\n" if as_json else "\n".join(lines(facts)) + "\n"
    )


def collect(source: str, config: RestoreConfig, frames: tuple[int, int] | None) -> dict[str, Any]:
    """The plan as plain data.  Errors as those of `Restorer.restore_file`."""
    from ..engine.backbones import facts_of
    from ..engine.bundle.settings import settled
    from ..engine.devices import resolve_device
    from ..engine.files.job import frame_range
    from ..engine.media import probe
    from ..engine.plan import describe, estimate, make_plan, matmul_flops
    from ..engine.progress import count_frames
    from ..engine.schedule import nodes, unstable
    from ..engine.shots import shots_of
    from ..engine.sr import sr_facts

    start, stop = frame_range(frames)
    info = probe(source, stop)
    extent = (info.height, info.width)
    count = count_frames(start, stop, info.num_frames)
    if count == 0:
        raise InputError(f"{source} ends before frame {start}")
    plan = sr = guidance = engines = None
    warnings: list[str] = []
    if config.backbone != "none":
        plan = make_plan(config, *extent)
        facts = facts_of(config.backbone)
        guidance = config.dtg(facts.defaults)
        engines = facts.runtime if facts.buckets else None
        if outside := len(unstable(nodes(guidance))):
            warnings.append(
                f"alpha exceeds its stable maximum at {outside} of {guidance.steps} steps: "
                "guidance adds noise there; --alpha-clip clamps it"
            )
    if config.sr != "none":
        sr = sr_facts(config.sr)
    scale = sr.scale if sr else 1
    speed = matmul_flops(resolve_device(settled(config).device))
    span = None if count is None else (start, start + count)
    shots = shots_of(config.shots, source, info, plan.grid, stop) if plan else (0,)
    cost = estimate(plan, sr, extent, span, info.num_frames, speed, shots)
    return {
        "input": {
            "path": source,
            "kind": info.kind,
            "width": info.width,
            "height": info.height,
            "frames": info.num_frames,
            "fps": float(info.fps),
            "bit_depth": info.bit_depth,
            "matrix": info.colour.matrix,
            "audio": info.has_audio,
        },
        "output": {"width": info.width * scale, "height": info.height * scale, "frames": count},
        "first_frame": start,
        "settings": asdict(config),
        "guidance": asdict(guidance) if guidance else None,
        "engines": engines,
        "plan": describe(plan) if plan else None,
        "estimate": cost,
        "fits": fits(config, plan, cost["memory_bytes"]),
        "warnings": warnings,
    }


def fits(config: RestoreConfig, plan: Any, needed: int) -> dict[str, Any]:
    """The memory that is there, whether it suffices, and the settings that would help."""
    from ..engine.bundle.settings import settled
    from ..engine.devices import resolve_device
    from ..engine.memory import memory_size
    from ..engine.plan import what_fits

    there = memory_size(resolve_device(settled(config).device))
    if there is None or needed <= there or plan is None:
        return {"memory_bytes": there, "fits": None if there is None else needed <= there}
    helps = what_fits(config, plan, there - (needed - plan.memory.device))
    return {"memory_bytes": there, "fits": False, "settings": helps, "tile": plan.smaller_tile}


def lines(facts: dict[str, Any]) -> list[str]:
    """The plan for a person."""
    source, output, cost = facts["input"], facts["output"], facts["estimate"]
    return [
        _row("input", f"{source['path']}: {_clip(source)}"),
        _row("output", f"{output['width']}x{output['height']}, {_range(facts)}"),
        *_refinement(facts),
        _row("super-resolution", _upscaling(facts)),
        _row("memory", _memory(cost["memory_bytes"], facts["fits"])),
        _row("time", _time(cost)),
        *(_row("warning", text) for text in facts["warnings"]),
    ]


def _row(name: str, text: str) -> str:
    return f"{name:18}{text}"


def _clip(source: dict[str, Any]) -> str:
    count = "unknown length" if source["frames"] is None else plural(source["frames"], "frame")
    audio = ", audio" if source["audio"] else ""
    return (
        f"{source['width']}x{source['height']}, {count}, {source['fps']:.4g} frames/s, "
        f"{source['bit_depth']} bit{audio}"
    )


def _range(facts: dict[str, Any]) -> str:
    count, first = facts["output"]["frames"], facts["first_frame"]
    if count is None:
        return f"frames from {first} on"
    return f"{plural(count, 'frame')} ({first} to {first + count - 1})"


def _refinement(facts: dict[str, Any]) -> list[str]:
    plan, cost, dtg = facts["plan"], facts["estimate"], facts["guidance"]
    if plan is None:
        return [_row("refinement", "none")]
    chunk, (width, height) = plan["chunk"], plan["tile"]
    many = "chunks" if cost["chunks"] is None else plural(cost["chunks"], "chunk")
    shots = "" if cost["shots"] is None else f", in {plural(cost['shots'], 'shot')}"
    total = "" if cost["evaluations"] is None else f", {cost['evaluations']} in all"
    batch = min(plan["tile_batch"], plan["tiles"])
    most = "at most " if any(facts["settings"][name] for name in TOLERANCES) else ""
    return [
        _row("chunks", f"{many} of {chunk['length']} frames, {chunk['overlap']} shared{shots}"),
        _row("tiles", f"{plural(plan['tiles'], 'tile')} of {width}x{height}, {batch} at once"),
        _row(
            "sampler",
            f"{plural(dtg['steps'], 'step')} from t = {dtg['t_start']:g}, {dtg['solver']}, "
            f"{dtg['schedule']}, alpha {dtg['alpha0']:g}, delta {dtg['delta0']:g}, "
            f"{dtg['space']} space",
        ),
        _row("evaluations", f"{most}{plan['evaluations']} a chunk{total}"),
        _execution(facts["engines"], plan),
    ]


def _execution(engines: str | None, plan: dict[str, Any]) -> str:
    if engines is None:
        return _row("attention", plan["attention"] or "as diffusers has it")
    shape = "of this shape" if plan["bucket"] else "of other shapes: the network itself is used"
    return _row("engines", f"{engines}, {shape}")


def _upscaling(facts: dict[str, Any]) -> str:
    return facts["settings"]["sr"]


def _memory(needed: int, fit: dict[str, Any]) -> str:
    text = f"about {size(needed)}, and the libraries themselves"
    if fit["fits"] is not False:
        return text
    text += f": more than the {size(fit['memory_bytes'])} that are there; "
    if fit.get("settings"):
        return (
            text
            + " ".join(f"--{name} {value}" for name, value in fit["settings"].items())
            + " fits"
        )
    if fit.get("tile"):
        return text + "try --tile {}x{} or a smaller --chunk".format(*fit["tile"])
    return text + "try a smaller --chunk"


def _time(cost: dict[str, Any]) -> str:
    if cost["seconds"] is None:
        return "unknown, as is the length"
    work = number(cost["refine_flops"] + cost["upscale_flops"])
    speed = number(cost["machine_flops_per_second"])
    return f"about {duration(cost['seconds'])} ({work}FLOP, machine {speed}FLOP/s)"
