"""Settings are checked when they are made, and the message names the one that is wrong."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from dtg_restore.engine.config import DTG, RestoreConfig, from_mapping
from dtg_restore.engine.errors import ConfigError

SAMPLER = {
    "t_start": [0.0, -0.1, 1.01, math.nan, math.inf, "half"],
    "steps": [0, -3, 1001, 2.5, "4"],
    "delta0": [-0.01, 1.1, math.nan],
    "alpha0": [-0.01, 51, math.nan],
    "kappa": [0.0, -4, 51],
    "tau_floor": [-0.1, 1.1],
    "shift": [0.0, -1, 101],
    "schedule": ["Linear", "", 3],
    "space": ["x_0", "eps"],
    "solver": ["rk4", "dpm"],
}
RUN = {
    "guidance": ["on", "DTG", None],
    "dtype": ["float32", "int8", None],
    "seed": [-1, 2**63, 1.5, None],
    "chunk": [0, -2, 100_001, 16.0],
    "tile_batch": [0, 100_001, "4"],
    "threads": [0, -1, 1.5, "2"],
    "overlap": [-1, 100_001, 0.5],
    "tile_overlap": [-1, 100_001],
    "offload": ["layer", None, True],
    "weights": ["int4", None, "fp16"],
    "elide_tol": [-0.01, 1.1, math.nan, None, "0.1"],
    "reuse_tol": [-0.01, 1.1, math.nan, None, "0.1"],
    "cache_tol": [-0.01, 1.1, math.nan, None, "0.1"],
    "branches": ["both", None, "Batched"],
    "attention": ["flash", None, "SDPA"],
    "color_match": ["wavelets", None, "AdaIN"],
    "vae_tile": [(-8, 8), (8,), "96x96"],
    "tile": [(-8, 8), (8, -8), (8,), (8, 8, 8), 96, "96x96", (96.5, 96), (100_001, 8)],
}


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(SAMPLER))
def test_sampler_settings_out_of_range(name: str, value: Any) -> None:
    for make in (DTG, RestoreConfig):
        with pytest.raises(ConfigError, match=rf"^{name} is "):
            make(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(RUN))
def test_run_settings_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is "):
        RestoreConfig(**{name: value})


def test_every_number_and_choice_is_covered_above() -> None:
    free = {"backbone", "vae", "sr", "prompt", "negative_prompt", "prompt_embeds"}
    free |= {"runtime", "device", "alpha_clip", "full_chunks", "shots"}
    assert {f.name for f in dataclasses.fields(RestoreConfig)} - free == {*SAMPLER, *RUN}
    assert {f.name for f in dataclasses.fields(DTG)} - free == set(SAMPLER)


def test_colours_are_matched_after_a_refinement_alone() -> None:
    with pytest.raises(ConfigError, match="backbone is none"):
        RestoreConfig(backbone="none", color_match="adain")


def test_a_message_tells_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="exponential, cosine, linear, constant"):
        DTG(schedule="steep")
    with pytest.raises(ConfigError, match="between 0.001 and 1"):
        DTG(t_start=2)


@pytest.mark.parametrize(
    "settings",
    [
        {"t_start": 1, "steps": 1, "delta0": 0, "alpha0": 0, "tau_floor": 1},
        {"t_start": 0.001, "steps": 1000, "delta0": 1, "alpha0": 50, "kappa": 50},
        {"t_start": np.float32(0.5), "steps": np.int64(3)},
    ],
)
def test_ends_of_the_ranges_are_inside(settings: dict[str, Any]) -> None:
    DTG(**settings)
    RestoreConfig(**settings, seed=2**63 - 1, chunk=1, overlap=0, tile=(0, 0), tile_batch=1)


def test_settings_are_frozen() -> None:
    for settings in (DTG(), RestoreConfig()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.steps = 3


def test_unknown_key() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 't_stat': known are .*t_start"):
        from_mapping({"t_stat": 0.3, "steps": 4})
    assert from_mapping({"t_start": 0.3, "steps": 4}) == RestoreConfig(t_start=0.3, steps=4)


def test_nothing_to_do() -> None:
    with pytest.raises(ConfigError, match="nothing to do"):
        RestoreConfig(backbone="none", sr="none")


DEFAULTS = DTG(t_start=0.2, steps=4, delta0=0.1, alpha0=2.5, kappa=6.0, space="x0", shift=2.0)


def test_what_is_not_given_is_the_backbones() -> None:
    assert RestoreConfig().dtg(DEFAULTS) == DEFAULTS
    given = RestoreConfig(t_start=0.4, delta0=0.0, schedule="cosine", alpha_clip=True)
    want = dataclasses.replace(
        DEFAULTS, t_start=0.4, delta0=0.0, schedule="cosine", alpha_clip=True
    )
    assert given.dtg(DEFAULTS) == want


def test_guidance_modes() -> None:
    cfg = RestoreConfig(guidance="cfg", alpha0=3.0).dtg(DEFAULTS)
    assert cfg == dataclasses.replace(DEFAULTS, alpha0=3.0, delta0=0.0, schedule="constant")
    none = RestoreConfig(guidance="none").dtg(DEFAULTS)
    assert none == dataclasses.replace(DEFAULTS, delta0=0.0, alpha0=1.0)
