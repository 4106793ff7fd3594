"""Graphs quantised to fp8, executed by ONNX Runtime, against the same arithmetic in torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dtg_restore.engine.backbones.mini import MiniConfig, MiniDiT
from dtg_restore.engine.errors import EngineError
from dtg_restore.engine.media import open_reader
from dtg_restore.engine.restorer import Restorer
from dtg_restore.export.calibrate import Calibration, Recorder, calibrate, linear_layers
from dtg_restore.export.fp8 import Quantised, fp8_artefact, insert_qdq
from dtg_restore.export.mini import velocity_stage
from dtg_restore.export.onnx import to_onnx
from dtg_restore.export.operators import unsupported
from dtg_restore.export.stage import Artefact, Stage

SIZE = (2, 2, 16, 16)  # B, T, H, W


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def onnx() -> Any:
    pytest.importorskip("onnxscript", reason="torch exports to ONNX by onnxscript: not installed")
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def execute(onnx: Any) -> Callable[[Path, dict[str, Tensor]], Tensor]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1

    def execute(path: Path, inputs: dict[str, Tensor]) -> Tensor:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (v,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(v)

    return execute


def make_network(seed: int = 0) -> MiniDiT:
    torch.manual_seed(seed)
    network = MiniDiT(MiniConfig(width=48, depth=1, heads=2, ffn_dim=96))
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    torch.nn.init.normal_(network.tag_embedding)
    return network.requires_grad_(False).eval()


def random_inputs(stage: Stage) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(stage.inputs["x"].shape, generator=generator)
    return stage.inputs | {"x": x, "t": torch.tensor([0.5, 0.2])}


@pytest.fixture(scope="module")
def made(onnx: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Artefact, Path]:
    """A pass of one layer, in fp32."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("fp32")
    stage = velocity_stage(make_network(), SIZE)
    return stage, to_onnx(stage, folder), folder


@pytest.fixture
def quantised(
    made: tuple[Stage, Artefact, Path], tmp_path: Path
) -> tuple[Stage, Artefact, Path, Calibration]:
    """It in fp8, calibrated on its own inputs."""
    stage, artefact, folder = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    calibration = seen_by(stage)
    return stage, fp8_artefact(stage, artefact, tmp_path, calibration), tmp_path, calibration


def seen_by(stage: Stage) -> Calibration:
    with Recorder() as recorder:
        stage.module(*random_inputs(stage).values())
    return Calibration(
        {k: {n: x.item() for n, x in found.items()} for k, found in recorder.amax.items()}
    )


def to_fp8(x: Tensor, amax: float) -> Tensor:
    scale = torch.tensor(amax / 448)
    return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


@contextmanager
def emulated(network: MiniDiT, amax: dict[str, float]) -> Iterator[None]:
    """Within it the linear layers of passes see what fp8 leaves of inputs and weights."""
    layers, handles = linear_layers(network), []
    exact = {name: layers[name].weight.clone() for name in amax}
    for name, peak in amax.items():
        layers[name].weight.copy_(to_fp8(exact[name], exact[name].abs().max().item()))
        handles.append(
            layers[name].register_forward_pre_hook(
                lambda _, inputs, peak=peak: (to_fp8(inputs[0], peak), *inputs[1:])
            )
        )
    yield
    for handle in handles:
        handle.remove()
    for name, weight in exact.items():
        layers[name].weight.copy_(weight)


def error(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).norm() / expected.norm()).item()


def test_a_quantised_graph_computes_what_fp8_means(
    quantised: tuple[Stage, Artefact, Path, Calibration],
    execute: Callable[[Path, dict[str, Tensor]], Tensor],
) -> None:
    stage, artefact, folder, calibration = quantised
    inputs = random_inputs(stage)
    network = stage.module.network
    v = execute(folder / artefact.files[0], inputs)
    exact = stage.module(*inputs.values())
    with emulated(network, calibration.of(network)):
        expected = stage.module(*inputs.values())
    assert 1e-3 < error(expected, exact) < 0.1
    # A value at the border of two of fp8 may fall on either side.
    assert error(v, expected) < 0.2 * error(expected, exact)


def test_the_file_says_what_is_quantised(
    onnx: Any, made: tuple[Stage, Artefact, Path], quantised: tuple[Stage, Artefact, Path, Any]
) -> None:
    _, before, exact = made
    stage, artefact, folder, calibration = quantised
    assert artefact.files == before.files
    assert (artefact.inputs, artefact.outputs) == (before.inputs, before.outputs)
    assert artefact.onnx_sha256 != before.onnx_sha256
    path = folder / artefact.files[0]
    assert path.stat().st_size < 0.8 * (exact / before.files[0]).stat().st_size
    proto = onnx.load(path)
    assert unsupported(proto) == []
    kinds = [node.op_type for node in proto.graph.node]
    # Queries, keys and values of self-attention share their input.
    assert kinds.count("QuantizeLinear") == 6 and kinds.count("DequantizeLinear") == 6 + 8
    weights = [t for t in proto.graph.initializer if t.name.endswith(".weight.quantized")]
    assert len(weights) == len(calibration.of(stage.module.network)) == 8
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT8E4M3FN}
    assert list(folder.iterdir()) == [path]


def test_weights_may_lie_beside_the_graph(
    made: tuple[Stage, Artefact, Path],
    tmp_path: Path,
    quantised: tuple[Stage, Artefact, Path, Calibration],
    execute: Callable[[Path, dict[str, Tensor]], Tensor],
) -> None:
    stage, inside, folder, calibration = quantised
    other = tmp_path / "beside"
    other.mkdir()
    before = to_onnx(stage, other, external=True)
    size = (other / before.files[1]).stat().st_size
    artefact = fp8_artefact(stage, before, other, calibration)
    assert artefact.files == before.files and len(artefact.files) == 2
    assert (other / artefact.files[1]).stat().st_size < size
    inputs = random_inputs(stage)
    results = [
        execute(place / a.files[0], inputs) for place, a in ((folder, inside), (other, artefact))
    ]
    assert torch.equal(*results)


def matmuls(onnx: Any, nodes: list[Any], weights: dict[str, Tensor]) -> Any:
    """x (3, 4) -> y through `nodes`, with stored weights."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, (3, 4))],
        [helper.make_tensor_value_info("y", kind, (3, 5))],
        [onnx.numpy_helper.from_array(w.numpy(), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("form", ["folded", "transposed", "gemm"])
def test_weights_are_found_in_every_form(
    form: str,
    onnx: Any,
    tmp_path: Path,
    execute: Callable[[Path, dict[str, Tensor]], Tensor],
) -> None:
    make, weight = onnx.helper.make_node, torch.randn(5, 4)
    nodes = {
        "folded": [make("MatMul", ["x", "w"], ["y"])],
        "transposed": [
            make("Transpose", ["w"], ["wt"], perm=[1, 0]),
            make("MatMul", ["x", "wt"], ["y"]),
        ],
        "gemm": [make("Gemm", ["x", "w"], ["y"], transB=1)],
    }[form]
    stored = weight.T.contiguous() if form == "folded" else weight
    proto = matmuls(onnx, nodes, {"w": stored})
    insert_qdq(proto, {"layer": Quantised(weight, 3.0)})
    onnx.checker.check_model(proto, full_check=True)
    assert "w" not in {tensor.name for tensor in proto.graph.initializer}
    assert [node.op_type for node in proto.graph.node].count("Transpose") == 0
    onnx.save(proto, tmp_path / "x.onnx")
    x = torch.randn(3, 4) * 2  # beyond 3, too
    expected = to_fp8(x, 3.0) @ to_fp8(weight, weight.abs().max().item()).T
    torch.testing.assert_close(execute(tmp_path / "x.onnx", {"x": x}), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_graph_keeps_its_precision(dtype: torch.dtype, onnx: Any) -> None:
    weight = torch.randn(5, 4).to(dtype)
    proto = matmuls(onnx, [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {})
    kind = {torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16"}[dtype]
    data_type = getattr(onnx.TensorProto, kind)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.elem_type = data_type
    data = weight.T.contiguous().view(torch.uint8).numpy().tobytes()
    stored = onnx.TensorProto(name="w", dims=(4, 5), data_type=data_type, raw_data=data)
    proto.graph.initializer.append(stored)
    insert_qdq(proto, {"layer": Quantised(weight, 3.0)})
    onnx.checker.check_model(proto, full_check=True)
    scales = [t for t in proto.graph.initializer if t.name.endswith("scale")]
    assert {t.data_type for t in scales} == {data_type} and len(scales) == 2


def test_a_layer_of_zeros_stays_one(
    onnx: Any, tmp_path: Path, execute: Callable[[Path, dict[str, Tensor]], Tensor]
) -> None:
    proto = matmuls(
        onnx, [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": torch.zeros(4, 5)}
    )
    insert_qdq(proto, {"layer": Quantised(torch.zeros(5, 4), 0.0)})
    onnx.save(proto, tmp_path / "x.onnx")
    assert not execute(tmp_path / "x.onnx", {"x": torch.randn(3, 4)}).any()


def test_a_layer_that_is_not_found_is_an_error(onnx: Any) -> None:
    weight = torch.randn(5, 4)
    proto = matmuls(
        onnx, [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight.T.contiguous()}
    )
    other = Quantised(weight + 1, 1.0)
    with pytest.raises(EngineError, match="no weights of b, c$"):
        insert_qdq(
            proto, {"a": Quantised(weight, 1.0), "c": other, "b": Quantised(weight + 2, 1.0)}
        )
    with pytest.raises(EngineError, match="a and b have equal weights"):
        insert_qdq(proto, {"a": Quantised(weight, 1.0), "b": Quantised(weight.clone(), 1.0)})


def test_another_network_is_refused(made: tuple[Stage, Artefact, Path], tmp_path: Path) -> None:
    stage, artefact, folder = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    other = seen_by(velocity_stage(make_network(seed=1), SIZE))
    with pytest.raises(EngineError, match="another network"):
        fp8_artefact(stage, artefact, tmp_path, other)


def test_only_passes_are_quantised(made: tuple[Stage, Artefact, Path], tmp_path: Path) -> None:
    stage, artefact, _ = made
    condition = replace(stage, name="condition.0")
    assert fp8_artefact(condition, artefact, tmp_path, Calibration({})) is artefact


def test_a_real_clip_looks_the_same_in_fp8(shared_data: Path) -> None:
    def frames(name: str) -> Tensor:
        with open_reader(shared_data / name, 0, 8) as reader:
            return torch.stack([frame[:, :64, :64] for frame in reader])

    restorer = Restorer.load(backbone="mini", sr="none", device="cpu", branches="batched", chunk=8)
    network = restorer.backbone.network
    calibration = calibrate(restorer, [shared_data / "vsr/vid4_city/lr_x4_bicubic"], 8)
    clip = frames("clips2/butterfly_1.mp4")
    exact = restorer.restore(clip)
    with torch.inference_mode(), emulated(network, calibration.of(network)):
        fast = restorer.restore(clip)
    psnr = -10 * (fast - exact).square().mean().log10().item()
    assert 50 < psnr < 70
    assert psnr > -10 * (clip - exact).square().mean().log10().item() + 10
