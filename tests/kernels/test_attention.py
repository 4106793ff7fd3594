"""Attention against its formula, and the choice among libraries, with stand-ins for all of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dtg_restore.kernels import KernelChoiceError, attention, native
from dtg_restore.kernels import attention_libraries as libraries
from dtg_restore.kernels.attention import OP, TOLERANCE
from dtg_restore.kernels.dispatch import Case

CPU = torch.device("cpu")
LIBRARIES = ("flash_attn_interface", "flash_attn", "xformers", "sageattention")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DTG_KERNELS", raising=False)
    forget()
    yield
    forget()


def forget() -> None:
    """What was found out about libraries, as if the process were new."""
    for found in (libraries._absence, libraries._import_error, libraries._failure):
        found.cache_clear()


def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.double() for x in (q, k, v))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).float()


def qkv(num: int = 9, length: int = 5, head_dim: int = 16, dtype=torch.bfloat16) -> list[Tensor]:
    """As a block has them: q and k contiguous, v a view of a projection."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 3, num, head_dim, generator=generator).to(dtype)
    k = torch.randn(2, 3, length, head_dim, generator=generator).to(dtype)
    v = torch.randn(2, length, 3, head_dim, generator=generator).to(dtype).transpose(1, 2)
    return [q, k, v]


@pytest.mark.parametrize("case", OP.cases[:-1], ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_formula(case: Case, dtype: torch.dtype) -> None:
    arguments = case.build(dtype, CPU)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(
        attention(*arguments).float(),
        formula(*arguments),
        rtol=tolerance.rtol,
        atol=tolerance.atol,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q[0], k, v), r"q must be .*\(3, 9, 16\)"),
        (lambda q, k, v: (q.double(), k, v), "q must be .*float64"),
        (lambda q, k, v: (q, k[:1], v), "k must be"),
        (lambda q, k, v: (q, k, v[:, :2]), "v must be"),
        (lambda q, k, v: (q, k, v[:, :, :4]), "v must be .*one L"),
        (lambda q, k, v: (q, k[..., :8], v), "k must be"),
        (lambda q, k, v: (q, k.float(), v), "k must be .*bfloat16.*got.*float32"),
        (lambda q, k, v: (q, k[:, :, :0], v[:, :, :0]), "k must be .*L >= 1"),
    ],
)
def test_arguments_are_checked(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*change(*qkv()))


def test_a_tracer_sees_one_operator() -> None:
    class Module(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v)

    exported = torch.export.export(Module(), tuple(qkv()))
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.aten.scaled_dot_product_attention.default]


def test_gradients() -> None:
    """Against those of the formula."""
    q, k, v = (x.requires_grad_() for x in qkv(dtype=torch.float32))
    got = torch.autograd.grad(attention(q, k, v).square().sum(), (q, k, v))
    want = torch.autograd.grad(formula(q, k, v).square().sum(), (q, k, v))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


Calls = list[tuple[str, list[Tensor], dict[str, Any]]]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stand-ins of all the packages, and of cuDNN: each checks its layout; the calls are kept."""
    calls: Calls = []

    def stand_in(name: str, scale: str, heads_inside: bool, answer: Callable[[Tensor], Any]) -> Any:
        def function(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
            calls.append((name, [q, k, v], options))
            assert all(x.stride(-1) == 1 for x in (q, k, v))
            if heads_inside:
                q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v, scale=options[scale])
            return answer(out.transpose(1, 2).contiguous() if heads_inside else out)

        return function

    def same(out: Tensor) -> Tensor:
        return out

    functions = {
        "flash_attn_interface": {
            "flash_attn_func": stand_in("flash3", "softmax_scale", True, lambda o: (o, None))
        },
        "flash_attn": {"flash_attn_func": stand_in("flash2", "softmax_scale", True, same)},
        "xformers": {},
        "xformers.ops": {"memory_efficient_attention": stand_in("xformers", "scale", True, same)},
        "sageattention": {"sageattn": stand_in("sage", "sm_scale", False, lambda o: 1.02 * o)},
    }
    for name, attributes in functions.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.backends.cuda, "can_use_cudnn_attention", lambda _: True)
    monkeypatch.setattr(libraries, "sdpa_kernel", lambda _: torch.no_grad())
    return calls


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Tensors of the CPU count as those of a GPU of that capability."""
    monkeypatch.setattr(native, "_load", lambda: (None, "the tensors are on a GPU"))

    def gpu(*capability: int) -> None:
        monkeypatch.setattr(libraries, "_capabilities", lambda: (capability,))
        monkeypatch.setattr(libraries, "_capability", lambda _: capability)

    return gpu


def remove(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    forget()


@pytest.mark.parametrize(
    ("capability", "order"),
    [
        ((8, 0), ["flash2", "xformers", "sdpa"]),
        ((8, 9), ["flash2", "xformers", "sdpa"]),
        ((9, 0), ["flash3", "cudnn", "flash2", "xformers", "sdpa"]),
        ((10, 0), ["cudnn", "flash2", "xformers", "sdpa"]),
        ((12, 0), ["flash2", "xformers", "sdpa"]),
        ((7, 5), ["sdpa"]),
    ],
)
def test_order(
    installed: Calls,
    gpu: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    order: list[str],
) -> None:
    gpu(*capability)
    module_of = {"flash3": "flash_attn_interface", "flash2": "flash_attn", "xformers": "xformers"}
    for name in order:
        assert OP.choose(*qkv()).name == name
        if name == "cudnn":
            monkeypatch.setattr(torch.backends.cuda, "can_use_cudnn_attention", lambda _: False)
        elif name != "sdpa":
            remove(monkeypatch, module_of[name])


@pytest.mark.parametrize("name", ["flash3", "cudnn", "flash2", "xformers", "sage"])
@pytest.mark.parametrize(("num", "length"), [(9, 9), (9, 5)])
def test_layouts_and_scale(
    installed: Calls, gpu: Callable[..., None], name: str, num: int, length: int
) -> None:
    gpu(9, 0)
    arguments = qkv(num, length)
    got = attention(*arguments, implementation=name)
    want = formula(*arguments) * (1.02 if name == "sage" else 1)
    torch.testing.assert_close(got.float(), want, rtol=2**-6, atol=2**-7)
    assert got.dtype == arguments[0].dtype
    if name == "cudnn":
        return
    called, given, options = installed[-1]
    assert called == name and 16**-0.5 in options.values()
    inside = name != "sage"
    for mine, theirs in zip(arguments, given, strict=True):
        assert theirs.data_ptr() == mine.data_ptr()  # views: nothing was copied
        assert theirs.shape == (mine.transpose(1, 2).shape if inside else mine.shape)
    if inside:  # the output projection reads it as it is
        assert got.transpose(1, 2).flatten(-2).data_ptr() == got.data_ptr()


def test_cudnn_and_sage_only_by_name(installed: Calls, gpu: Callable[..., None]) -> None:
    gpu(8, 0)
    assert OP.choose(*qkv(), name="cudnn").name == "cudnn"
    assert OP.choose(*qkv(), name="sage").name == "sage"


def test_the_environment_overrules_the_order(
    installed: Calls, gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(9, 0)
    monkeypatch.setenv("DTG_KERNELS", "attention=sdpa")
    attention(*qkv())
    assert installed == []


def skewed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (qkv(dtype=torch.float32), "q is torch.float32, not bfloat16 or float16"),
        (qkv(head_dim=20), "head_dim is 20, no multiple of 8 up to 256"),
        (qkv(head_dim=264), "head_dim is 264"),
        (qkv(num=0), "there are no queries"),
        ([qkv()[0], skewed(qkv()[1]), qkv()[2]], "k is not contiguous in the last dimension"),
    ],
)
@pytest.mark.parametrize("name", ["flash3", "cudnn", "flash2", "xformers", "sage"])
def test_reasons_against_tensors(
    installed: Calls, gpu: Callable[..., None], name: str, arguments: list[Tensor], reason: str
) -> None:
    gpu(9, 0)
    assert OP.choose(*arguments).name == "sdpa"
    if name == "sage":
        reason = reason.replace("256", "128")
    with pytest.raises(KernelChoiceError, match=f"attention: {name} cannot run: .*{reason}"):
        attention(*arguments, implementation=name)


def test_sage_has_no_gradient_and_narrow_heads(installed: Calls, gpu: Callable[..., None]) -> None:
    gpu(9, 0)
    sage = OP.get("sage")
    assert "a gradient is needed" in sage.not_supported_reasons(
        *qkv()[:2], qkv()[2].requires_grad_()
    )
    assert "up to 128" in sage.not_supported_reasons(*qkv(head_dim=136))[0]


def test_all_reasons_of_a_machine() -> None:
    """Without a GPU and without the packages: both are said, and nothing is imported."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name, module in zip(("flash3", "flash2", "xformers", "sage"), LIBRARIES, strict=True):
        reasons = list(OP.get(name).missing())
        assert "needs a GPU of sm_" in reasons[0] and "there is none" in reasons[0]
        assert module in sys.modules or reasons[1] == f"{module} is not installed"
    assert OP.get("cudnn").missing() and not OP.get("sdpa").missing()


def test_another_gpu_and_no_package(
    installed: Calls, gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(8, 0)
    assert OP.get("flash3").missing() == ["it needs a GPU of sm_90 (Hopper), and there is none"]
    assert OP.get("flash2").missing() == []
    remove(monkeypatch, "flash_attn")
    assert OP.get("flash2").missing() == ["flash_attn is not installed"]
    monkeypatch.setattr(libraries, "_capabilities", lambda: ((8, 0), (9, 0)))
    reasons = OP.get("flash3").not_supported_reasons(*qkv())  # the tensors are on the other one
    assert reasons == ["it needs a GPU of sm_90 (Hopper), not sm_80"]


def test_a_package_that_does_not_import(
    installed: Calls, gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    gpu(8, 0)
    monkeypatch.delitem(sys.modules, "flash_attn")
    (tmp_path / "flash_attn.py").write_text("raise OSError('undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    assert OP.get("flash2").missing() == ["flash_attn does not import: OSError: undefined symbol"]
    assert OP.choose(*qkv()).name == "xformers"


def test_a_package_built_for_another_gpu(
    installed: Calls,
    gpu: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It imports, and fails at the first call: the next one is taken, and it is said once."""
    gpu(8, 0)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(sys.modules["flash_attn"], "flash_attn_func", fail)
    with caplog.at_level(logging.WARNING, logger="dtg_restore"):
        assert OP.choose(*qkv()).name == OP.choose(*qkv(num=4)).name == "xformers"
    assert [r.getMessage() for r in caplog.records] == [
        "attention by flash2 is not available: it fails on cpu: RuntimeError: no kernel image is "
        "available"
    ]
    with pytest.raises(KernelChoiceError, match="flash2 cannot run: it fails on cpu.*no kernel"):
        attention(*qkv(), implementation="flash2")
