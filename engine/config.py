"""The settings of a run: frozen and checked when they are made.

`None` means "what suits the backbone": its facts hold the value.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from .errors import ConfigError

SCHEDULES = ("exponential", "cosine", "linear", "constant")
SPACES = ("velocity", "x0")
SOLVERS = ("euler", "heun")
MODES = ("dtg", "cfg", "none")
OFFLOADS = ("none", "block", "model")
WEIGHTS = ("auto", "fp8", "int8", "int8-dynamic")
TOLERANCES = ("elide_tol", "reuse_tol", "cache_tol")  # 0 = exact
BRANCHES = ("auto", "batched", "sequential")
ATTENTIONS = ("auto", "native", "cudnn", "flash3", "flash2", "xformers", "sdpa", "sage")
COLOR_MATCHES = ("none", "wavelet", "adain")


def _one_of(name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(map(str, allowed))}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not isinstance(value, Real) or not low <= value <= high:  # also refuses nan
        raise ConfigError(f"{name} is {value!r}: it must lie between {low:g} and {high:g}")


def _whole(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, Integral):
        raise ConfigError(f"{name} is {value!r}: it must be a whole number")
    _between(name, value, low, high)


def _size(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"{name} is {value!r}: it must be (width, height)")
    for side in value:
        _whole(name, side, 0, 100_000)


@dataclass(frozen=True)
class DTG:
    """Settings of the guided sampler, by the paper's letters.  Times are flow times in [0, 1].

    Parameters
    ----------
    t_start : where denoising starts; 0 < t_start <= 1.
    steps : number of solver steps from t_start to 0.
    delta0, alpha0 : lookahead and guidance weight at t_start, annealed to 0 and to 1.
    schedule, kappa : shape of the annealing; kappa is the rate of "exponential".
    space : what is extrapolated, "velocity" or the "x0" prediction.
    alpha_clip : clamp alpha to `schedule.alpha_max`, so that guidance never adds noise.
    tau_floor : tau is kept at or above tau_floor * t.
    solver : "euler", or "heun" (second order, two evaluations a step but for the last).
    shift : time shift; 1 = evenly spaced times.

    Classifier-free guidance is `delta0 = 0` with `schedule="constant"`, SDEdit is `alpha0 = 1` with
    `delta0 = 0`: see `DTG.cfg` and `DTG.sdedit`.
    """

    t_start: float = 0.5
    steps: int = 20
    delta0: float = 0.15
    alpha0: float = 2.0
    schedule: str = "exponential"
    kappa: float = 4.0
    space: str = "velocity"
    alpha_clip: bool = False
    tau_floor: float = 0.0
    solver: str = "euler"
    shift: float = 1.0

    def __post_init__(self) -> None:
        _between("t_start", self.t_start, 1e-3, 1)
        _whole("steps", self.steps, 1, 1000)
        _between("delta0", self.delta0, 0, 1)
        _between("alpha0", self.alpha0, 0, 50)
        _between("kappa", self.kappa, 1e-3, 50)
        _between("tau_floor", self.tau_floor, 0, 1)
        _between("shift", self.shift, 0.01, 100)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("space", self.space, SPACES)
        _one_of("solver", self.solver, SOLVERS)

    def cfg(self) -> DTG:
        """The same run with classifier-free guidance of scale alpha0."""
        return replace(self, delta0=0.0, schedule="constant")

    def sdedit(self) -> DTG:
        """The same run with no guidance at all."""
        return replace(self, delta0=0.0, alpha0=1.0)


@dataclass(frozen=True)
class RestoreConfig:
    """Every setting of a run that can change its result, and where it runs.

    Parameters
    ----------
    backbone : "mini", "none" (super-resolution only), a path (that of a bundle, too), or an id on
        the hub.
    vae : codec of a latent backbone: "auto" (its own), "tiny" (small, for previews) or a path.
    vae_tile : (width, height) in pixels that the codec works on; None = the codec's own choice,
        (0, 0) = the whole frame.
    prompt_embeds : safetensors file of prompt embeddings, so that no text encoder is needed.
    offload : "none", "block" or "model": what of the backbone stays on the device.
    weights : "auto" (the dtype), "fp8" or "int8": how the backbone's matrices are held;
        "int8-dynamic" computes in 8 bits too, on a CPU.
    sr : "mini-x2", "mini-x4", "none" or a path to weights or to a bundle.
    guidance : "dtg", "cfg" or "none" (SDEdit).
    t_start, steps, delta0, alpha0, schedule, kappa, space, alpha_clip, tau_floor, solver, shift :
        see `DTG`; None = the backbone's own default.
    elide_tol : the unconditional branch is not evaluated where that changes the guided velocity by
        less than this share of its norm, as estimated from the last step that had both, 0 .. 1;
        0 = only where it has no weight, which changes no bit.
    reuse_tol : the unconditional branch is taken from its last evaluations where that changes the
        guided velocity by less than this share of its norm, as estimated, 0 .. 1; 0 = off.
    cache_tol : the same for both branches: the step is made without the backbone; 0 = off.  What
        they cost is in bench/results/caching_mini.json: of 40 evaluations on `mini`, reuse_tol 0.1
        makes 24 at 63 dB to the exact run, with cache_tol 0.1 17 at 52 dB, with 0.2 14 at 45 dB.
    branches : "batched" (both branches in one call), "sequential", or "auto": as measured for the
        shape on this machine and kept in the user's cache.
    attention : what computes the attention of own networks: "auto" (the best that is there),
        "native" (on a CPU), "cudnn", "flash3", "flash2", "xformers", "sdpa", or "sage" (8-bit
        products, with the error in the report).
    color_match : refined frames take coarse colours of the input: "none", "wavelet" (all that is
        coarser than about 32 pixels) or "adain" (mean and standard deviation of each channel).
    prompt, negative_prompt : text, or a quality tag for `mini`; None = the backbone's default.
    seed : of the noise, 0 .. 2^63 - 1.
    chunk, overlap : frames refined together, and shared by neighbours; None = the backbone's.
    full_chunks : continue the last chunk of a shot by reflection up to the full length, so that
        all have one shape; engine bundles always do, so eager frames then equal theirs.
    shots : where chunks begin anew, so that none holds two shots: "auto" (at the cuts that are
        found), "none", or a file with the number of every shot's first frame, one a line.
    tile : (width, height) in pixels, None = the backbone's; (0, 0) = the whole frame.
    tile_overlap : pixels shared by neighbouring tiles.
    tile_batch : tiles in one call of the backbone.
    runtime, device, dtype : "auto" or by name.
    threads : of the CPU; None = as many as torch takes, but no more than the process's share of
        cores.
    """

    backbone: str = "mini"
    vae: str = "auto"
    vae_tile: tuple[int, int] | None = None
    prompt_embeds: str | None = None
    offload: str = "none"
    weights: str = "auto"
    sr: str = "mini-x2"
    guidance: str = "dtg"
    t_start: float | None = None
    steps: int | None = None
    delta0: float | None = None
    alpha0: float | None = None
    schedule: str | None = None
    kappa: float | None = None
    space: str | None = None
    alpha_clip: bool | None = None
    tau_floor: float | None = None
    solver: str | None = None
    shift: float | None = None
    elide_tol: float = 0.0
    reuse_tol: float = 0.0
    cache_tol: float = 0.0
    branches: str = "auto"
    attention: str = "auto"
    color_match: str = "none"
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int = 0
    chunk: int | None = None
    overlap: int | None = None
    full_chunks: bool = False
    shots: str = "auto"
    tile: tuple[int, int] | None = None
    tile_overlap: int | None = None
    tile_batch: int | None = None
    runtime: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        _one_of("guidance", self.guidance, MODES)
        _one_of("dtype", self.dtype, ("auto", "fp32", "bf16", "fp16"))
        _whole("seed", self.seed, 0, 2**63 - 1)
        for name in ("chunk", "tile_batch", "threads"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1, 100_000)
        for name in ("overlap", "tile_overlap"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 0, 100_000)
        for name in ("tile", "vae_tile"):
            _size(name, getattr(self, name))
        _one_of("offload", self.offload, OFFLOADS)
        _one_of("weights", self.weights, WEIGHTS)
        for name in TOLERANCES:
            _between(name, getattr(self, name), 0, 1)
        _one_of("branches", self.branches, BRANCHES)
        _one_of("attention", self.attention, ATTENTIONS)
        _one_of("color_match", self.color_match, COLOR_MATCHES)
        if self.backbone == "none" and self.sr == "none":
            raise ConfigError("backbone and sr are both none: there is nothing to do")
        if self.backbone == "none" and self.color_match != "none":
            raise ConfigError("color_match belongs to the refinement, and backbone is none")
        self.dtg(DTG())  # checks what concerns the sampler

    def dtg(self, defaults: DTG) -> DTG:
        """The sampler's settings: those given here, else the backbone's `defaults`."""
        given = {
            f.name: getattr(self, f.name) for f in fields(DTG) if getattr(self, f.name) is not None
        }
        settings = replace(defaults, **given)
        if self.guidance == "cfg":
            return settings.cfg()
        return settings.sdedit() if self.guidance == "none" else settings


def from_mapping(values: dict[str, Any]) -> RestoreConfig:
    """A configuration from names and values; ConfigError names an unknown key."""
    known = {f.name for f in fields(RestoreConfig)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}: known are {', '.join(sorted(known))}")
    return RestoreConfig(**values)
