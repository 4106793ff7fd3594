"""What a calibration sees: every linear layer of a pass, on real runs, at its largest input."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.mini import MiniBackbone, MiniConfig, MiniDiT
from dtg_restore.engine.codecs.pixels import PixelCodec
from dtg_restore.engine.config import RestoreConfig
from dtg_restore.engine.errors import ConfigError, EngineError, InputError
from dtg_restore.engine.media import open_writer
from dtg_restore.engine.quantize import quantize_blocks
from dtg_restore.engine.restorer import Restorer
from dtg_restore.engine.runtimes.graph import GraphBackbone
from dtg_restore.engine.types import ColourTags
from dtg_restore.export import calibrate as module
from dtg_restore.export.calibrate import calibrate

CPU = torch.device("cpu")
PASS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
PASS += ("attn2.to_q", "attn2.to_out.0", "ffn.net.0.proj", "ffn.net.2")


def make_network(seed: int = 0) -> MiniDiT:
    torch.manual_seed(seed)
    network = MiniDiT(MiniConfig(width=24, depth=2, heads=2, ffn_dim=48))
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    torch.nn.init.normal_(network.tag_embedding)
    return network


def make_restorer(network: MiniDiT, **settings: object) -> Restorer:
    settings = {"chunk": 4, "overlap": 2, "tile": (16, 16), "steps": 2, "sr": "none"} | settings
    config = RestoreConfig(device="cpu", branches="batched", **settings)  # type: ignore[arg-type]
    return Restorer(config, MiniBackbone(network, CPU, torch.float32), PixelCodec(CPU), None, CPU)


def write(folder: Path, frames: Tensor) -> Path:
    height, width = frames.shape[-2:]
    rate = Fraction(24)
    with open_writer(folder, width=width, height=height, fps=rate, colour=ColourTags()) as writer:
        for frame in frames:
            writer.write(frame)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip", torch.rand(8, 3, 16, 32))


def test_every_layer_of_a_pass_is_seen_at_its_largest_input(clip: Path) -> None:
    network = make_network()
    seen: dict[str, list[Tensor]] = {}
    for name, layer in network.named_modules():
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0])
        )
    restorer = make_restorer(network)
    found = calibrate(restorer, [clip]).of(network)
    assert found.keys() == {f"blocks.{i}.{name}" for i in range(2) for name in PASS}
    for name, amax in found.items():
        assert amax == max(x.abs().max().item() for x in seen[name]) > 0
    assert len(seen["blocks.0.ffn.net.2"]) == 3 * 2  # chunks and steps of the run


def test_clips_add_up_and_only_their_first_frames_count(tmp_path: Path, clip: Path) -> None:
    network = make_network()
    restorer = make_restorer(network)
    frames = torch.cat([torch.full((4, 3, 16, 32), 0.5), torch.rand(4, 3, 16, 32)])
    flat = write(tmp_path / "flat", frames)
    alone = [calibrate(restorer, [path], 4).of(network) for path in (clip, flat)]
    both = calibrate(restorer, [clip, flat], 4).of(network)
    assert both == {name: max(found[name] for found in alone) for name in alone[0]}
    assert calibrate(restorer, [flat], 8).of(network) != alone[1]


def test_a_calibration_belongs_to_its_weights(clip: Path) -> None:
    network = make_network()
    calibration = calibrate(make_restorer(network), [clip])
    assert calibration.of(make_network()) == calibration.of(network)
    with pytest.raises(EngineError, match="of another network"):
        calibration.of(make_network(seed=1))
    with pytest.raises(EngineError, match="another precision"):
        calibration.of(make_network().to(torch.bfloat16))


def test_recorded_passes_are_calibrated_as_well(clip: Path) -> None:
    network = make_network()
    restorer = make_restorer(network)
    graph = GraphBackbone.__new__(GraphBackbone)  # as on a GPU, where a replay calls no layer
    graph.plain = restorer.backbone
    recorded = Restorer(restorer.config, graph, restorer.codec, None, CPU)
    assert calibrate(recorded, [clip], 4) == calibrate(restorer, [clip], 4)


def test_what_cannot_be_calibrated_is_said(clip: Path, tmp_path: Path) -> None:
    network = make_network()
    restorer = make_restorer(network)
    with pytest.raises(ConfigError, match="at least one clip"):
        calibrate(restorer, [])
    with pytest.raises(InputError):
        calibrate(restorer, [tmp_path / "absent.mp4"])
    with torch.no_grad():
        network.blocks[0].ffn.net[0].proj.weight[0, 0] = torch.inf
    with pytest.raises(EngineError, match="not finite"):
        calibrate(restorer, [clip], 4)
    quantize_blocks(network := make_network(), "int8")
    with pytest.raises(EngineError, match="mini has no linear layers"):
        calibrate(make_restorer(network), [clip], 4)


def test_a_failed_run_leaves_nothing_behind(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise InputError("spoilt")

    before = len(module.hooks._global_forward_pre_hooks)
    monkeypatch.setattr(module, "open_reader", fail)
    with pytest.raises(InputError, match="spoilt"):
        calibrate(make_restorer(make_network()), [clip])
    assert len(module.hooks._global_forward_pre_hooks) == before
