"""The transformer's parts against implementations as slow and plain as they can be written."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor, nn

from dtg_restore.engine.backbones import blocks
from dtg_restore.engine.backbones.blocks import Attention, Block, rope_3d
from dtg_restore.engine.backbones.dit import timestep_embedding
from dtg_restore.kernels import layernorm_modulate
from dtg_restore.kernels.rmsnorm_rope import rotate

CPU = torch.device("cpu")


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def axis_angles(place: tuple[int, int, int], head_dim: int) -> list[float]:
    """One angle per pair of channels: first those of time, then of rows, then of columns."""
    spatial = 2 * (head_dim // 6)
    angles = []
    for position, dim in zip(place, (head_dim - 2 * spatial, spatial, spatial), strict=True):
        angles += [position / 10000 ** (2 * i / dim) for i in range(dim // 2)]
    return angles


def naive_rope(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Pairs (even, odd) as complex numbers, turned by the angles of their token."""
    t, h, w = grid
    places = [(i, j, k) for i in range(t) for j in range(h) for k in range(w)]
    out = torch.empty_like(x)
    for n, place in enumerate(places):
        for pair, angle in enumerate(axis_angles(place, x.shape[-1])):
            turn = cmath.exp(1j * angle)
            for index in torch.cartesian_prod(*(torch.arange(s) for s in x.shape[:2])).tolist():
                row = (*index, n)
                value = complex(x[row][2 * pair], x[row][2 * pair + 1]) * turn
                out[row][2 * pair], out[row][2 * pair + 1] = value.real, value.imag
    return out


def naive_rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def naive_attention(module: Attention, x: Tensor, tokens: Tensor, rope_grid=None) -> Tensor:
    """Softmax over explicit products, head by head."""
    q = naive_rms(module.to_q(x), module.norm_q.weight)
    k = naive_rms(module.to_k(tokens), module.norm_k.weight)
    v = module.to_v(tokens)
    dim = x.shape[-1] // module.heads
    heads = []
    for i in range(module.heads):
        a, b, c = (m[..., i * dim : (i + 1) * dim] for m in (q, k, v))
        if rope_grid is not None:
            a, b = (naive_rope(m[:, None], rope_grid)[:, 0] for m in (a, b))
        scores = a @ b.transpose(1, 2) / math.sqrt(dim)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ c)
    return module.to_out[0](torch.cat(heads, dim=-1))


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    module = Attention(48, 2).requires_grad_(False)
    nn.init.uniform_(module.norm_q.weight, 0.5, 2)
    nn.init.uniform_(module.norm_k.weight, 0.5, 2)
    return module


@pytest.mark.parametrize("head_dim", [8, 24, 32])
def test_rope_against_complex_numbers(head_dim: int) -> None:
    x = rand(1, 2, 2 * 3 * 4, head_dim)
    got = rotate(x, *rope_3d(2, 3, 4, head_dim, CPU))
    torch.testing.assert_close(got, naive_rope(x, (2, 3, 4)), rtol=0, atol=2e-6)


def test_rope_products_depend_on_distance_alone() -> None:
    cos_sin = rope_3d(4, 5, 6, 24, CPU)
    q, k = rand(24), rand(24, seed=1)
    turned_q = rotate(q.expand(1, 1, 120, 24), *cos_sin)[0, 0].view(4, 5, 6, 24)
    turned_k = rotate(k.expand(1, 1, 120, 24), *cos_sin)[0, 0].view(4, 5, 6, 24)
    near = turned_q[0, 1, 2] @ turned_k[1, 3, 2]
    far = turned_q[2, 2, 5] @ turned_k[3, 4, 5]
    torch.testing.assert_close(near, far, rtol=1e-5, atol=1e-5)
    assert (near - turned_q[0, 1, 2] @ turned_k[1, 3, 3]).abs() > 1e-3


def test_rope_tables_made_in_inference_serve_training() -> None:
    blocks._made_rope.cache_clear()
    with torch.inference_mode():
        rope_3d(1, 2, 2, 24, CPU)
    x = rand(1, 1, 4, 24).requires_grad_()
    rotate(x, *rope_3d(1, 2, 2, 24, CPU)).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach(), rtol=1e-5, atol=1e-5)


def test_self_attention(attention: Attention) -> None:
    x = rand(2, 1 * 2 * 3, 48)
    got = attention(x, rope_3d(1, 2, 3, 24, CPU))
    torch.testing.assert_close(got, naive_attention(attention, x, x, (1, 2, 3)), rtol=0, atol=2e-6)
    assert (got - naive_attention(attention, x, x)).abs().max() > 1e-3  # the rotation matters


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_cross_attention_shares_rows_between_consecutive_samples(
    attention: Attention, rows: int
) -> None:
    x, tokens = rand(4, 7, 48), rand(rows, 4, 48, seed=1)
    got = attention(x, None, attention.keys_values(tokens))
    want = naive_attention(attention, x, tokens.repeat_interleave(4 // rows, 0))
    torch.testing.assert_close(got, want, rtol=0, atol=2e-6)


def test_block_by_hand() -> None:
    torch.manual_seed(0)
    block = Block(48, 2, 96).requires_grad_(False)
    x, modulation, tokens = rand(2, 6, 48), rand(2, 6, 48, seed=1), rand(1, 4, 48, seed=2)
    shift, scale, gate, c_shift, c_scale, c_gate = (modulation[:, i] for i in range(6))
    y = layernorm_modulate(x, scale, shift)
    want = x + gate[:, None] * naive_attention(block.attn1, y, y, (1, 2, 3))
    y = nn.functional.layer_norm(want, (48,), block.norm2.weight, block.norm2.bias, 1e-6)
    want = want + naive_attention(block.attn2, y, tokens.expand(2, -1, -1))
    y = layernorm_modulate(want, c_scale, c_shift)
    inner = y @ block.ffn.net[0].proj.weight.T + block.ffn.net[0].proj.bias
    cubic = math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)
    inner = 0.5 * inner * (1 + torch.tanh(cubic))
    want = want + c_gate[:, None] * (inner @ block.ffn.net[2].weight.T + block.ffn.net[2].bias)
    rope = rope_3d(1, 2, 3, 24, CPU)
    got = block(x, modulation, rope, block.attn2.keys_values(tokens))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_timestep_embedding() -> None:
    t = torch.tensor([0.0, 0.123, 1.0])
    got = timestep_embedding(t, 16)
    for row, time in zip(got, t.tolist(), strict=True):
        angles = [1000 * time / 10000 ** (i / 8) for i in range(8)]
        want = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row.tolist() == pytest.approx(want, abs=2e-4)  # fp32 angles of up to 1000


@pytest.mark.parametrize("trained", [False, True])
def test_block_trains_by_the_references(trained: bool) -> None:
    """A kernel that knows no gradient must not be chosen where one is wanted, and only there."""
    torch.manual_seed(0)
    block = Block(48, 2, 96).requires_grad_(trained)
    x, modulation, tokens = rand(2, 6, 48), rand(2, 6, 48, seed=1), rand(1, 4, 48, seed=2)
    arguments = (x, modulation, rope_3d(1, 2, 3, 24, CPU), block.attn2.keys_values(tokens))
    out = block(*arguments)
    assert out.requires_grad == trained
    if trained:
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in block.parameters() if p.ndim == 1)
    with torch.no_grad():
        torch.testing.assert_close(block(*arguments), out.detach(), rtol=0, atol=1e-5)


def test_gradients_of_a_block() -> None:
    """Those of autograd against finite differences, along one direction in all inputs."""
    torch.manual_seed(0)
    block = Block(48, 2, 96)
    x, modulation = rand(1, 6, 48).requires_grad_(), rand(1, 6, 48, seed=1).requires_grad_()
    tokens = rand(1, 4, 48, seed=2)
    rope = rope_3d(1, 2, 3, 24, CPU)

    def loss(x: Tensor, modulation: Tensor) -> Tensor:
        return block(x, modulation, rope, block.attn2.keys_values(tokens)).square().mean()

    loss(x, modulation).backward()
    for tensor, other in ((x, 0), (modulation, 1)):
        step = 1e-2 * rand(*tensor.shape, seed=3)
        ahead, behind = [x.detach(), modulation.detach()], [x.detach(), modulation.detach()]
        ahead[other], behind[other] = tensor.detach() + step, tensor.detach() - step
        with torch.no_grad():
            difference = (loss(*ahead) - loss(*behind)) / 2
        torch.testing.assert_close((tensor.grad * step).sum(), difference, rtol=2e-2, atol=1e-4)


def test_block_is_traced_whole() -> None:
    torch.manual_seed(0)
    block = Block(48, 2, 96).requires_grad_(False)
    x, modulation, tokens = rand(2, 6, 48), rand(2, 6, 48, seed=1), rand(1, 4, 48, seed=2)
    arguments = (x, modulation, rope_3d(1, 2, 3, 24, CPU), block.attn2.keys_values(tokens))
    want = block(*arguments)
    exported = torch.export.export(block, arguments).module()
    torch.testing.assert_close(exported(*arguments), want, rtol=0, atol=1e-5)
    traced = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(*arguments), want, rtol=0, atol=1e-5)
