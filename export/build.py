"""Bundles, built: from a request to a folder that appears complete or not at all."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..engine.bundle.damage import damage
from ..engine.bundle.facts import to_json
from ..engine.bundle.hashes import file_facts
from ..engine.bundle.manifest import FileFacts, Manifest, read_manifest, write_manifest
from ..engine.devices import named_out_of_memory
from ..engine.errors import EngineError
from ..engine.report import machine, versions
from ..engine.runtimes.base import Component
from . import output, store
from .key import key_of
from .meter import Cancel, Meter, OnStep
from .models import Models, calibrated, stages_of
from .recipe import Recipe, make_recipe
from .request import ExportRequest
from .targets import Job, compile_stage

logger = logging.getLogger(__name__)


class Built(NamedTuple):
    """A bundle, and whether it was there already."""

    folder: Path
    manifest: Manifest
    was_cached: bool


def build_bundle(
    request: ExportRequest,
    on_progress: OnStep | None = None,
    *,
    target: Path | None = None,
    overwrite: bool = False,
    cancel: Cancel | None = None,
) -> Built:
    """The bundle that is asked for: from the cache, or built into it.

    While another process builds the same one, we wait and take its result.

    Parameters
    ----------
    on_progress : told of every component.
    target : folder that it is copied to; None = it stays in the cache alone.
    overwrite : replace another bundle that is at `target`.
    cancel : asked before every component.

    Raises
    ------
    ConfigError : a setting does not suit the models.
    EngineError : weights, a library or the device are not there, or a network cannot be exported.
    InputError : the disk is full, or the cache or `target` cannot be written.
    OutOfMemory, Interrupted
    """
    recipe = make_recipe(request)
    key = key_of(recipe)
    if target is not None:
        output.check(target, key, overwrite)
    store.clear_leftovers()
    with store.lock_of(key, _tell_of_waiting):
        built = _cached(recipe, key) or _build(recipe, key, Meter(recipe, on_progress, cancel))
        if target is None:
            return built
        output.copy(built.folder, built.manifest, target)
        return built._replace(folder=target)


def _tell_of_waiting() -> None:
    logger.warning("another process exports the same bundle: waiting for it")


def _cached(recipe: Recipe, key: str) -> Built | None:
    folder = store.folder_of(key)
    if not folder.exists():
        return None
    try:
        manifest = read_manifest(folder)
    except EngineError as error:
        logger.warning("%s: it is built again", error)
        return None
    if problems := damage(folder, manifest):
        logger.warning("%s: %s: it is built again", folder, "; ".join(problems))
        return None
    return Built(folder, _with_sources(folder, manifest, recipe), was_cached=True)


def _with_sources(folder: Path, manifest: Manifest, recipe: Recipe) -> Manifest:
    """The same weights may lie elsewhere by now."""
    models = {
        name: model | {"source": recipe.sources[name].describe()} if "source" in model else model
        for name, model in manifest.models.items()
    }
    if models == manifest.models:
        return manifest
    changed = replace(manifest, models=models)
    store.replace_manifest(folder, changed)
    return changed


def _build(recipe: Recipe, key: str, meter: Meter) -> Built:
    start = time.monotonic()
    components: dict[str, Component] = {}
    models: Models = {}
    with store.writing(key) as folder, named_out_of_memory():
        if recipe.request.calibrate is not None:
            meter.tell("calibrate")
        calibration = calibrated(recipe)
        meter.tell("load")
        for stage in stages_of(recipe, folder, models):
            meter.tell("export", stage.name)
            job = Job(recipe, stage, folder, calibration, meter.part)
            components[stage.name] = Component(*compile_stage(job))
            meter.finish(stage.name)
        meter.tell("check")
        manifest = Manifest(
            key=key,
            runtime=recipe.request.to,
            device=recipe.device.type,
            precision=recipe.precision,
            models=models,
            components=components,
            needs=recipe.needs,
            made_with={
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.monotonic() - start, 1),
                "versions": versions(),
                "machine": machine(recipe.device),
                "request": to_json(recipe.request),
            },
            files=_files(folder),
        )
        write_manifest(folder, manifest)
    return Built(store.folder_of(key), manifest, was_cached=False)


def _files(folder: Path) -> dict[str, FileFacts]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_facts(path) for path in files}
