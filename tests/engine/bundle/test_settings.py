"""What a bundle was compiled for is no setting any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dtg_restore.engine.bundle.manifest import read_manifest, write_manifest
from dtg_restore.engine.bundle.settings import opened_with, settled
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError
from dtg_restore.engine.restorer import Restorer


def config(bundle: Path, **settings: Any) -> RestoreConfig:
    return RestoreConfig(**({"backbone": str(bundle), "sr": "none"} | settings))


@pytest.fixture
def on_gpu(tmp_path: Path, bundle: Path) -> Path:
    """A manifest that says it was compiled for a GPU in fp8, with a codec for tiles."""
    manifest = read_manifest(bundle)
    models = manifest.models | {"codec": {"kind": "wan", "tile": [32, 16]}}
    write_manifest(
        tmp_path, replace(manifest, device="cuda", precision="fp8", models=models, runtime="onnx")
    )
    return tmp_path


def test_open_settings_are_the_bundles(bundle: Path, on_gpu: Path) -> None:
    found = settled(config(bundle))
    assert (found.device, found.dtype, found.vae_tile) == ("cpu", "fp32", None)
    found = settled(config(on_gpu, device="cuda:1", runtime="ort"))
    assert (found.device, found.dtype, found.vae_tile) == ("cuda:1", "auto", (32, 16))
    assert settled(RestoreConfig(backbone="none", sr=str(bundle))).device == "cpu"
    plain = RestoreConfig(dtype="bf16", offload="block")
    assert settled(plain) is plain


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"weights": "int8"}, "weights is 'int8': .* has weights in fp32"),
        ({"offload": "block"}, "offload is 'block': .* has all weights on the device"),
        ({"attention": "sdpa"}, "attention is 'sdpa': .* has its attention compiled in"),
        ({"vae": "tiny"}, "vae is 'tiny': .* has the codec pixels"),
        ({"vae_tile": (32, 32)}, r"vae_tile is \(32, 32\): .* has no codec"),
        ({"dtype": "bf16"}, "dtype is 'bf16': .* was compiled in fp32"),
        ({"device": "cuda:0"}, "device is 'cuda:0': .* was compiled for cpu"),
        ({"runtime": "eager"}, "runtime is 'eager'.*ort"),
        ({"runtime": "tensorrt"}, "runtime is 'tensorrt'.*ort"),
        ({"backbone": "none", "sr": None, "dtype": "bf16"}, "dtype is 'bf16'.*in fp32"),
    ],
)
def test_what_it_contradicts(bundle: Path, settings: dict[str, Any], names: str) -> None:
    if "sr" in settings:
        settings = settings | {"sr": str(bundle)}
    with pytest.raises(ConfigError, match=names):
        Restorer.load(config(bundle, **settings))


def test_codec_tiles_are_as_compiled(on_gpu: Path) -> None:
    settled(config(on_gpu, vae_tile=(32, 16)))
    with pytest.raises(ConfigError, match="has a codec for tiles of 32x16"):
        settled(config(on_gpu, vae_tile=(16, 16)))


def test_runtimes_of_bundles_execute_no_weights() -> None:
    with pytest.raises(ConfigError, match="runtime is 'ort'.*bundle"):
        Restorer.load(runtime="ort", device="cpu", sr="none")


def test_all_that_it_has_is_opened(bundle: Path, tmp_path: Path) -> None:
    assert opened_with(bundle) == {"backbone": str(bundle), "sr": str(bundle)}
    manifest = read_manifest(bundle)
    for parts, expected in (
        (("backbone", "codec"), {"backbone": str(tmp_path)}),
        (("sr",), {"backbone": "none", "sr": str(tmp_path)}),
    ):
        models = {part: manifest.models[part] for part in parts}
        write_manifest(tmp_path, replace(manifest, models=models))
        assert opened_with(tmp_path) == expected


def test_settings_reach_the_restorer(bundle: Path) -> None:
    restorer = Restorer.open(bundle, sr="none", steps=1)
    assert restorer.sr is None and restorer.config.steps == 1
    assert restorer.device == torch.device("cpu")
    assert restorer.configure(seed=1).backbone is restorer.backbone
    with pytest.raises(ConfigError, match="unknown setting 'stepz'"):
        Restorer.open(bundle, stepz=1)
