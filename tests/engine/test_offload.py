"""Offloading changes where weights lie and when, never a result."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine import offload
from dtg_restore.engine.offload import BlockOffload, ModelOffload, module_bytes
from dtg_restore.engine.quantize import quantize_linears

CPU = torch.device("cpu")
WIDTH = 8
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Block(nn.Module):
    """Tensors of several dtypes, shapes and kinds, one empty, one no multiple of any alignment."""

    odd: Tensor

    def __init__(self, inner: int):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, inner), nn.Linear(inner, WIDTH, bias=False)
        self.norm = nn.RMSNorm(WIDTH).to(torch.bfloat16)
        self.register_buffer("odd", torch.randn(3), persistent=False)
        self.register_buffer("none", torch.empty(0))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(torch.tanh(self.up(self.norm(x.bfloat16()).float())))
        return x + y * self.odd.sum() + self.count


class Network(nn.Module):
    def __init__(self, sizes: list[int]):
        super().__init__()
        self.head = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block(size) for size in sizes)

    @torch.inference_mode()
    def forward(self, x: Tensor, blocks: Iterable[nn.Module] | None = None) -> Tensor:
        x = self.head(x)
        for block in self.blocks if blocks is None else blocks:
            x = block(x)
        return x


def network(*sizes: int) -> Network:
    torch.manual_seed(0)
    return Network(list(sizes)).requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [(9,), (9, 9), (9, 9, 9), (5, 16, 3, 8)], ids=str)
def test_results_are_equal_to_the_bit(sizes: tuple[int, ...], x: Tensor) -> None:
    plain = network(*sizes)
    offloaded = copy.deepcopy(plain)
    in_turn = BlockOffload(offloaded.blocks, CPU)
    for scale in (1, 2, 3):  # an odd number of blocks changes the buffers' turns
        assert torch.equal(offloaded(scale * x, in_turn), plain(scale * x))


def test_order_and_residence() -> None:
    net = network(9, 9, 9)
    in_turn = BlockOffload(net.blocks, CPU)
    home = [block.up.weight.data_ptr() for block in net.blocks]
    used = []
    for _ in range(2):
        for index, block in enumerate(in_turn):
            assert block is net.blocks[index]
            used.append(block.up.weight.data_ptr())
            away = [i for i, b in enumerate(net.blocks) if b.up.weight.data_ptr() != home[i]]
            assert away == [index]
    assert [block.up.weight.data_ptr() for block in net.blocks] == home
    assert len(in_turn) == 3 and len(set(used)) == 2  # two buffers, in turn
    assert all(a != b for a, b in zip(used, used[1:], strict=False))


def test_the_next_block_is_fetched_before_this_one_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []
    copy_block = torch.Tensor.copy_

    in_turn = BlockOffload(network(9, 9, 9).blocks, CPU)
    packed = {p.data_ptr(): i for i, p in enumerate(in_turn._packed)}

    def logged(self: Tensor, source: Tensor, *rest: object) -> Tensor:
        log.append(f"copy {packed[source.data_ptr()]}")
        return copy_block(self, source, *rest)

    monkeypatch.setattr(torch.Tensor, "copy_", logged)
    for _ in range(2):
        for index, _ in enumerate(in_turn):
            log.append(f"compute {index}")
    assert log[:7] == [
        "copy 0",
        "copy 1",
        "compute 0",
        "copy 2",
        "compute 1",
        "copy 0",
        "compute 2",
    ]
    assert log[7:] == ["copy 1", "compute 0", "copy 2", "compute 1", "copy 0", "compute 2"]


def test_no_memory_is_taken_in_a_pass() -> None:
    net = network(9, 16, 9)
    in_turn = BlockOffload(net.blocks, CPU)
    buffers = [slot.buffer.data_ptr() for slot in in_turn._slots]
    list(in_turn)
    assert sorted(buffers) == sorted(slot.buffer.data_ptr() for slot in in_turn._slots)
    largest = max(module_bytes(block) for block in net.blocks)
    tensors = len(offload.module_tensors(net.blocks[0]))
    assert 2 * largest <= in_turn.device_bytes <= 2 * (largest + tensors * offload.ALIGNMENT)


def test_a_pass_that_is_broken_off(x: Tensor) -> None:
    plain = network(9, 9, 9)
    offloaded = copy.deepcopy(plain)
    in_turn = BlockOffload(offloaded.blocks, CPU)
    for stop in (0, 1, 2):
        for index, _ in enumerate(in_turn):
            if index == stop:
                break
        assert torch.equal(offloaded(x, in_turn), plain(x))


def test_state_is_kept() -> None:
    net = network(9, 9)
    before = copy.deepcopy(net.state_dict())
    for _ in BlockOffload(net.blocks, CPU):
        pass
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantised_blocks(kind: str, x: Tensor) -> None:
    plain = network(9, 12)
    quantize_linears(plain.blocks, kind)
    offloaded = copy.deepcopy(plain)
    in_turn = BlockOffload(offloaded.blocks, CPU)
    assert torch.equal(offloaded(x, in_turn), plain(x))


def test_made_within_inference_mode(x: Tensor) -> None:
    plain = network(9, 9, 9)
    with torch.inference_mode():
        offloaded = network(9, 9, 9)
        in_turn = BlockOffload(offloaded.blocks, CPU)
        offloaded(x, in_turn)
    with torch.no_grad():  # buffers that belonged to the mode would refuse the copy
        assert len(list(in_turn)) == 3
    assert torch.equal(offloaded(x, in_turn), plain(x))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_model_offload(mode: type, x: Tensor) -> None:
    net = network(9, 9)
    expected = net(x)
    with mode():
        whole = ModelOffload(net, CPU)
    tensors = offload.module_tensors(net)
    home = [tensor.data_ptr() for tensor in tensors]
    for _ in range(2):
        with mode(), whole.on_device(), whole.on_device():
            away = [tensor.data_ptr() for tensor in tensors]
            assert all(a != b for a, b in zip(away, home, strict=True) if a and b)
            assert torch.equal(net(x), expected)
        assert [tensor.data_ptr() for tensor in tensors] == home
    assert torch.equal(net(x), expected)


def test_model_offload_comes_home_after_an_error() -> None:
    net = network(9)
    whole = ModelOffload(net, CPU)
    home = net.head.weight.data_ptr()
    with pytest.raises(ValueError, match="odd"), whole.on_device():
        raise ValueError("odd")
    assert net.head.weight.data_ptr() == home
    with whole.on_device():
        assert net.head.weight.data_ptr() != home


def test_bytes_of_a_module() -> None:
    with torch.device("meta"):
        linear = nn.Linear(10, 3, dtype=torch.bfloat16)
    assert module_bytes(linear) == (30 + 3) * 2


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("sizes", [(64, 64), (64, 64, 64, 64, 64)], ids=str)
def test_on_a_gpu(sizes: tuple[int, ...], x: Tensor) -> None:
    device = torch.device("cuda", 0)
    plain = network(*sizes)
    offloaded = copy.deepcopy(plain)
    plain.to(device)
    offloaded.head.to(device)
    in_turn = BlockOffload(offloaded.blocks, device)
    assert all(packed.is_pinned() for packed in in_turn._packed)
    x = x.to(device)
    for scale in range(20):
        assert torch.equal(offloaded(scale * x, in_turn), plain(scale * x))


@pytest.mark.gpu
@needs_cuda
def test_model_offload_on_a_gpu(x: Tensor) -> None:
    device = torch.device("cuda", 0)
    net = network(64, 64)
    expected = copy.deepcopy(net).to(device)(x.to(device))
    whole = ModelOffload(net, device)
    assert net.head.weight.is_pinned()
    with whole.on_device():
        assert torch.equal(net(x.to(device)), expected)
    assert net.head.weight.device == CPU
