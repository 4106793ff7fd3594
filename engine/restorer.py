"""The public interface: load once, restore frames, streams and files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import as_frames, checked
from .backbones import load_backbone, load_codec
from .backbones.base import Backbone
from .bundle.settings import opened_with, settled
from .codecs.base import Codec
from .config import RestoreConfig
from .cores import use_threads
from .devices import named_out_of_memory, resolve_device, resolve_dtype
from .errors import ConfigError
from .files.file_run import restore_file
from .files.job import Job, frame_range
from .plan import Plan, make_plan
from .report import Clock
from .run import Cancel, OnProgress, Run
from .runtimes import on_runtime
from .shots import given_shots
from .sr import SuperResolver, load_sr
from .sr.frames import FrameSR

# Settings that decide what is loaded.
LOADED = (
    *("backbone", "vae", "vae_tile", "prompt_embeds", "offload", "weights"),
    *("attention", "sr", "runtime", "device", "dtype", "threads"),
)


@dataclass(frozen=True)
class Restorer:
    """Models on their device, with the settings of a run.

    Make one with `Restorer.load`.  `configure` gives another that shares the models.
    """

    config: RestoreConfig
    backbone: Backbone | None
    codec: Codec | None
    sr: SuperResolver | None
    device: torch.device

    @classmethod
    def load(cls, config: RestoreConfig | None = None, **settings: Any) -> Restorer:
        """Load the models that `config`, changed by `settings`, names.

        Raises
        ------
        ConfigError : a setting is unknown or out of range.
        EngineError : weights or the device cannot be used.

        Examples
        --------
        >>> restorer = Restorer.load(backbone="mini", sr="mini-x2", t_start=0.15)
        """
        config = _changed(config or RestoreConfig(), settings)
        fixed = settled(config)
        device = resolve_device(fixed.device)
        dtype = resolve_dtype(fixed.dtype, device)
        use_threads(config.threads)
        backbone = codec = sr = None
        with named_out_of_memory():
            if config.backbone != "none":
                backbone = on_runtime(config, load_backbone(config, device, dtype))
                codec = load_codec(config, device, dtype)
            if config.sr != "none":
                sr = load_sr(config.sr, device, dtype)
        return cls(config, backbone, codec, sr, device)

    @classmethod
    def open(cls, bundle: str | os.PathLike[str], **settings: Any) -> Restorer:
        """Open an engine bundle, as `dtg-restore export` makes them.

        What it holds is loaded: its backbone with the codec, its super-resolution model.  A clip is
        cut into tiles and chunks that it has engines for: those of its preferred shape, or those
        that `tile` and `chunk` ask for.  A shape that it has none for is evaluated by the network
        that it was made of, where that is still there and `runtime` is "auto".

        Parameters
        ----------
        bundle : the folder.
        settings : as of `load`.  The bundle decides device, precision, weights, attention and the
            codec's tile; `backbone="none"` or `sr` by name leave a part of it out.

        Raises
        ------
        EngineError : it is no bundle, or damaged, or this machine lacks what it needs; the message
            names the file or the field.
        ConfigError : a setting is unknown, out of range, or other than the bundle was made for.

        Examples
        --------
        >>> restorer = Restorer.open("clips.bundle", steps=4)  # (T, 3, H, W) to (T, 3, sH, sW)
        """
        return cls.load(**(opened_with(Path(bundle)) | settings))

    def configure(self, **settings: Any) -> Restorer:
        """The same models with other settings; what names a model or a device cannot change."""
        config = _changed(self.config, settings)
        for name in LOADED:
            if getattr(config, name) != getattr(self.config, name):
                raise ConfigError(f"{name} cannot change without loading: call Restorer.load")
        return replace(self, config=config)

    @property
    def scale(self) -> int:
        """Size of the output over that of the input."""
        return 1 if self.sr is None else self.sr.facts.scale

    def plan(self, height: int, width: int) -> Plan | None:
        """How frames of that size are cut; None where there is no backbone."""
        return None if self.backbone is None else make_plan(self.config, height, width)

    def restore(self, frames: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """Restore a clip that is in memory.

        Parameters
        ----------
        frames : (T, H, W, 3) uint8, or (T, 3, H, W) floating point in [0, 1]; gamma-encoded RGB.

        Returns
        -------
        The same kind of array, `scale` times as large, in new memory.

        Raises
        ------
        InputError : another shape, another dtype, or no frames.
        """
        x, back = as_frames(frames)
        return back(torch.stack(list(self.stream(x))))

    def stream(
        self, frames: Iterable[Tensor], size: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Restore frames (3, H, W) in [0, 1] as they come, in bounded memory.

        Each restored frame (3, sH, sW) is yielded as soon as its chunk, and the next one where both
        share it, is finished; where a cut may lie, a few more frames are looked at.  `size`
        (height, width) saves looking at the first frame.  On a GPU with room for it, frames are
        upscaled while the next chunk is refined: then `frames` is drawn from in another thread, up
        to a chunk ahead.

        InputError for a frame of another shape, or of integers.
        """
        iterator = iter(frames)
        if size is None:
            first = next(iterator, None)
            if first is None:
                return
            height, width = first.shape[-2:]
            size, iterator = (height, width), _chain(first, iterator)
        run = self.run(size, given_shots(self.config.shots))
        yield from run.frames(run.clock.timed("decode", checked(iterator, size)), 0, None)

    def restore_file(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        frames: tuple[int, int] | None = None,
        codec: str = "h264",
        chroma: str | None = None,
        crf: int | None = None,
        color_space: str | None = None,
        output_color_space: str | None = None,
        overwrite: bool = False,
        resume: bool = True,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> dict[str, Any]:
        """Restore a video or an image sequence into another.

        A run that is broken off leaves what it has finished in a hidden folder beside the target,
        and the next one with the same settings goes on from there, to the same bytes.  Where memory
        runs out it goes on once with smaller tiles.

        Parameters
        ----------
        source, target : see `media.open_reader` and `media.open_writer`.
        frames : (first, last), inclusive and 0-based, clamped to the clip; None = all.
        codec, chroma, crf : see `media.open_writer`.
        color_space : of the source's pictures, by name; see `media.open_reader`.
        output_color_space : that the result's pictures are written in; None = `color_space`.
        overwrite : replace what exists.
        resume : go on with what an unfinished run has left; False discards it.
        on_progress : called with `Progress` after every step and frame; one call at a time, but
            not always from the thread that called this.
        cancel : asked after every step and frame; True ends the run.

        Returns
        -------
        The report of the run: settings, plan, versions, hashes, seconds by stage, evaluations and
        peak memory, as plain data.

        Raises
        ------
        ConfigError : a range, codec, colour space or setting that cannot be for this clip.
        InputError : the source cannot be read, or the target not be written, or another process
            is writing it.
        EngineError : the models gave NaN, or a finished part has been damaged.
        OutOfMemory : also with smaller tiles.
        Interrupted : `cancel` returned True; nothing stands under the target's name.
        """
        start, stop = frame_range(frames)
        job = Job(
            os.fspath(source),
            os.fspath(target),
            start,
            stop,
            {"codec": codec, "chroma": chroma, "crf": crf},
            color_space,
            output_color_space,
            overwrite,
            resume,
        )
        return restore_file(self, job, on_progress, cancel)

    def run(
        self,
        size: tuple[int, int],
        shots: tuple[int, ...] | None = (0,),
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        clock: Clock | None = None,
    ) -> Run:
        """A pass over a clip of `size` (height, width) with those shots: see `Run`."""
        return Run(
            self.config,
            self.backbone,
            self.codec,
            self.sr,
            self.plan(*size),
            self.device,
            size,
            on_progress,
            cancel,
            shots,
            clock,
        )

    def smaller(
        self, stage: str, tile: tuple[int, int] | None, size: tuple[int, int]
    ) -> Restorer | None:
        """The same models on smaller tiles, for frames of `size` (height, width); None where that
        stage has none.

        Parameters
        ----------
        stage : "upscale", whose tiles are halved, or "refine", whose tiles become `tile`
            (width, height).

        Raises
        ------
        ConfigError : no plan has such tiles.
        """
        if stage == "upscale" and isinstance(self.sr, FrameSR):
            sr = self.sr.smaller(*size)
            return None if sr is None else replace(self, sr=sr)
        if tile is None:
            return None
        restorer = self.configure(tile=tile)
        restorer.plan(*size)
        return restorer


def _changed(config: RestoreConfig, settings: dict[str, Any]) -> RestoreConfig:
    unknown = sorted(settings.keys() - asdict(config).keys())
    if unknown:
        raise ConfigError(
            f"unknown setting {unknown[0]!r}: known are {', '.join(sorted(asdict(config)))}"
        )
    return replace(config, **settings)


def _chain(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest
