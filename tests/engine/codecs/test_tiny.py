"""The tiny codec: numbers of its own project, streaming, the layout of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dtg_restore.engine.codecs.tiny import TinyCodec, load_tiny
from dtg_restore.engine.errors import ConfigError, EngineError

CPU = torch.device("cpu")
REFERENCE = Path(__file__).with_name("tiny_reference.safetensors")
LAYOUTS = {"taew2_1": (16, 1), "taew2_2": (48, 2)}

State = dict[str, Tensor]


@pytest.fixture
def codec(tiny_state: Callable[[int, int], State], tmp_path: Path) -> TinyCodec:
    torch.save(tiny_state(16, 1), tmp_path / "tiny.pth")
    return load_tiny(tmp_path / "tiny.pth", CPU, torch.float32)


@pytest.mark.parametrize("name", LAYOUTS)
def test_gives_what_its_own_project_gives(
    name: str, tiny_state: Callable, noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    channels, patch = LAYOUTS[name]
    save_file(tiny_state(channels, patch), tmp_path / "tiny.safetensors")
    codec = load_tiny(tmp_path / "tiny.safetensors", CPU, torch.float32)
    assert (codec.facts.channels, codec.facts.frames, codec.facts.pixels, codec.facts.causal) == (
        *(channels, 4, 8 * patch, True),
    )
    want = load_file(REFERENCE)
    z = codec.encode(noise(5, 3, 16 * patch, 24 * patch) / 2 + 0.5)
    frames = torch.cat(list(codec.decode(noise(1, channels, 2, 1, 2) * 2)))
    scale = want[f"{name}.z"].abs().max()
    torch.testing.assert_close(z / scale, want[f"{name}.z"] / scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(frames, want[f"{name}.frames"], rtol=0, atol=1e-5)


def test_a_stream_gives_what_one_pass_over_all_frames_gives(
    codec: TinyCodec, noise: Callable[..., Tensor]
) -> None:
    frames = noise(9, 3, 16, 24) / 2 + 0.5
    with torch.inference_mode():
        filled = torch.cat([frames, frames[-1:].expand(3, -1, -1, -1)])
        once = codec.vae.encode(filled, {}).transpose(0, 1)[None]
        torch.testing.assert_close(codec.encode(frames), once, rtol=0, atol=1e-5)
        shown = codec.vae.decode(once[0].transpose(0, 1), {})[3:].clamp(0, 1)
    slices = list(codec.decode(once))
    assert [len(part) for part in slices] == [1, 4, 4]
    torch.testing.assert_close(torch.cat(slices), shown, rtol=0, atol=1e-5)
    assert (slices[1] - slices[2]).abs().max() > 1e-3, "frames that do not differ prove nothing"


def test_slices_belong_to_the_caller(codec: TinyCodec, noise: Callable[..., Tensor]) -> None:
    slices = codec.decode(noise(1, 16, 3, 1, 2))
    first = next(slices)
    kept = first.clone()
    list(slices)
    assert torch.equal(first, kept)


def test_layers_that_grow_no_frames_are_read_as_well(
    tiny_state: Callable[[int, int], State], noise: Callable[..., Tensor], tmp_path: Path
) -> None:
    state = tiny_state(16, 1)
    z = noise(1, 16, 2, 1, 2)
    outputs = []
    for name in ("larger", "exact"):
        save_file(state, tmp_path / f"{name}.safetensors")
        codec = load_tiny(tmp_path / f"{name}.safetensors", CPU, torch.float32)
        outputs.append(torch.cat(list(codec.decode(z))))
        state["decoder.7.conv.weight"] = state["decoder.7.conv.weight"][256:].clone()
    assert torch.equal(*outputs)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (5, 3, 12, 16), (5, 3, 16, 20)])
def test_frames_that_do_not_fit(codec: TinyCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=f"{shape[0]} frames of {shape[3]}x{shape[2]}.*4 k \\+ 1"):
        codec.encode(torch.zeros(shape))


def _drop(state: State) -> None:
    del state["decoder.9.conv.2.bias"]


def _add(state: State) -> None:
    state["decoder.99.bias"] = torch.zeros(1)


def _bend(state: State) -> None:
    state["decoder.20.weight"] = torch.zeros(64, 32, 3, 3)


def _replace(state: State) -> None:
    state.clear()
    state["conv.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    "change, told",
    [
        (_drop, r"missing decoder\.9\.conv\.2\.bias"),
        (_add, r"unexpected decoder\.99\.bias"),
        (_bend, r"wrong shape decoder\.20\.weight"),
        (_replace, "not the layout of taew2_1"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_foreign_file(
    change: Callable[[State], None], told: str, suffix: str, tiny_state: Callable, tmp_path: Path
) -> None:
    state, path = tiny_state(16, 1), tmp_path / f"tiny{suffix}"
    change(state)
    (torch.save if suffix == ".pth" else save_file)(state, path)
    with pytest.raises(EngineError, match=told) as caught:
        load_tiny(path, CPU, torch.float32)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file(suffix: str, tiny_state: Callable, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"
    with pytest.raises(EngineError, match="no weights at"):
        load_tiny(path, CPU, torch.float32)
    (torch.save if suffix == ".pth" else save_file)(tiny_state(16, 1), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(EngineError, match="cut short") as caught:
        load_tiny(path, CPU, torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_quantised_weights(suffix: str, tiny_state: Callable, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"
    state = tiny_state(16, 1)
    state["encoder.0.bias"] = state["encoder.0.bias"].to(torch.float8_e4m3fn)
    (torch.save if suffix == ".pth" else save_file)(state, path)
    with pytest.raises(EngineError, match=r"encoder\.0\.bias in .* quantised weights are not read"):
        load_tiny(path, CPU, torch.float32)


def test_a_pickled_file_of_something_else(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "tiny.pth")
    with pytest.raises(EngineError, match="no state dict"):
        load_tiny(tmp_path / "tiny.pth", CPU, torch.float32)


class Payload:
    """What a hostile file would run on being read."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


def test_a_file_cannot_bring_code(tmp_path: Path) -> None:
    torch.save({"encoder.0.weight": Payload()}, tmp_path / "tiny.pth")
    with pytest.raises(EngineError, match="no file of tensors"):
        load_tiny(tmp_path / "tiny.pth", CPU, torch.float32)
