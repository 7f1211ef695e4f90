"""ONNX in: what the importer makes of a graph computes what ONNX says the graph computes."""

from __future__ import annotations

import builtins
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesnn.compiler.ann import INPUT, Ann, unit_shapes
from edgesnn.compiler.ann_forward import forward
from edgesnn.compiler.graph import Dense
from edgesnn.targets.errors import EdgesnnError, UsageError

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from edgesnn.compiler.onnx_import import load_onnx  # noqa: E402


def _scores(ann: Ann, fed: np.ndarray) -> np.ndarray:
    maps = ann.input.to_map(fed.astype(np.float64)) * ann.input.scale + ann.input.offset
    values = forward(ann, maps)
    for name, shape in unit_shapes(ann).items():
        assert values[name].shape[1:] == shape, name
    return values[ann.units[-1].name].reshape(len(fed), -1)


def _same(model: Any, fed: np.ndarray | None = None, softmax: bool = False, batch: int = 3) -> Ann:
    """The network of a model, after comparing it with ONNX's reference implementation."""
    ann = load_onnx(model.SerializeToString(), "net")
    if fed is None:
        fed = np.random.default_rng(7).normal(0, 1, (batch, *ann.input.fed_shape))
        fed = fed.astype(np.float32)
    name = next(i.name for i in model.graph.input)
    want = ReferenceEvaluator(model).run(None, {name: fed})[0]
    got = _scores(ann, fed)
    if softmax:
        e = np.exp(got - got.max(1, keepdims=True))
        got = e / e.sum(1, keepdims=True)
    assert np.abs(got - want.reshape(got.shape)).max() <= 1e-5 * max(1e-3, np.abs(want).max())
    last = ann.units[-1]
    assert all(isinstance(t.linear, Dense) for t in last.terms)
    assert last.pool is None and not last.rectified and last.ceiling is None and last.step is None
    known = {INPUT}
    for unit in ann.units:
        assert all(t.source in known and t.linear.bias is None for t in unit.terms)
        assert unit.name.isidentifier() and unit.name not in known
        known.add(unit.name)
    return ann


class _Graph:
    """A graph by hand: `op` adds a node and gives the name of its output."""

    def __init__(self, *fed: int, opset: int = 17, batch: int | str = "N", kind: int = 1) -> None:
        self.fed, self.opset, self.batch, self.kind = fed, opset, batch, kind
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.rng = np.random.default_rng(3)
        self.functions: list[Any] = []

    def const(self, value: Any, dtype: Any = np.float32, kind: int | None = None) -> str:
        name = f"k{len(self.constants)}"
        array = np.asarray(value, dtype)
        tensor = numpy_helper.from_array(array, name)
        if kind is not None:
            tensor = helper.make_tensor(name, kind, array.shape, array.ravel().tolist())
        self.constants.append(tensor)
        return name

    def weight(self, *shape: int) -> str:
        return self.const(self.rng.normal(0, 0.5, shape))

    def op(
        self, kind: str, *inputs: str, domain: str = "", name: str = "", **attributes: Any
    ) -> str:
        out = f"v{len(self.nodes)}"
        label = name or f"{kind}_{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [out], label, domain=domain, **attributes)
        self.nodes.append(node)
        return out

    def conv(self, x: str, out: int, inputs: int, kernel: tuple[int, ...], **more: Any) -> str:
        return self.op("Conv", x, self.weight(out, inputs, *kernel), self.weight(out), **more)

    def dense(self, x: str, inputs: int, out: int) -> str:
        return self.op("Gemm", x, self.weight(out, inputs), self.weight(out), transB=1)

    def model(self, output: str, kind: int = 1) -> Any:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", self.kind, [self.batch, *self.fed])],
            [helper.make_tensor_value_info(output, kind, None)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


# Networks from torch, by both of its exporters


def _lenet() -> tuple[Any, tuple[int, ...]]:
    from torch import nn

    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 5, padding=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 5), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(6 * 4 * 4, 20), nn.ReLU(), nn.Linear(20, 10)),
    )
    return net, (1, 24, 24)


def _signal() -> tuple[Any, tuple[int, ...]]:
    from torch import nn

    net = nn.Sequential(
        *(nn.Conv1d(3, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3, 2, 1)),
        *(nn.Conv1d(8, 8, 3, dilation=2, groups=4), nn.ReLU(), nn.AvgPool1d(2, padding=1)),
        *(nn.Flatten(), nn.Linear(8 * 6, 5), nn.LogSoftmax(1)),
    )
    return net, (3, 54)


def _separable() -> tuple[Any, tuple[int, ...]]:
    from torch import nn

    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()]
    for c, d, s in ((6, 8, 1), (8, 8, 2)):
        layers += [nn.Conv2d(c, c, 3, s, 1, groups=c, bias=False), nn.BatchNorm2d(c), nn.ReLU6()]
        layers += [nn.Conv2d(c, d, 1), nn.BatchNorm2d(d), nn.ReLU6()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1)]
    return nn.Sequential(*layers), (3, 20, 16)


def _residual() -> tuple[Any, tuple[int, ...]]:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, c: int, d: int, s: int) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(c, d, 3, s, 1), nn.Conv2d(d, d, 3, 1, 1)
            self.na, self.nb = nn.BatchNorm2d(d), nn.BatchNorm2d(d)
            self.skip = nn.Identity()
            if s > 1:
                self.skip = nn.Sequential(nn.Conv2d(c, d, 1, s), nn.BatchNorm2d(d))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.nb(self.b(torch.relu(self.na(self.a(x)))))
            return torch.relu(y + self.skip(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, 1, 1)
            self.one, self.two = Block(4, 4, 1), Block(4, 6, 2)
            self.head = nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.two(self.one(torch.relu(self.stem(x))))
            return self.head(x.mean((2, 3)))

    return Net(), (3, 12, 12)


def _vgg() -> tuple[Any, tuple[int, ...]]:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                *(
                    nn.Conv2d(3, 6, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(6, 6, 3, padding=1),
                    nn.ReLU(),
                ),
                *(nn.AvgPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
            )
            self.head = nn.Sequential(
                nn.Linear(8 * 4 * 3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.features((x - 0.4) / torch.tensor([0.2, 0.3, 0.4]).reshape(3, 1, 1))
            return self.head(x.view(x.shape[0], -1))

    return Net(), (3, 16, 12)


def _preactivation() -> tuple[Any, tuple[int, ...]]:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = (nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4))
            self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(3)])
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x + self.a(torch.relu(self.norms[0](x)))
            x = x + self.b(torch.relu(self.norms[1](x)))
            x = nn.functional.adaptive_avg_pool2d(torch.relu(self.norms[2](x)), 1)
            return self.head(torch.flatten(x, 1))

    return Net(), (1, 9, 9)


def _export(net: Any, shape: tuple[int, ...], dynamo: bool, path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    x = torch.randn(2, *shape)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            dims = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(net, (x,), path, dynamo=True, dynamic_shapes=dims, verbose=False)
        else:
            axes = {"x": {0: "batch"}}
            torch.onnx.export(net, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize(
    "make",
    [_lenet, _signal, _separable, _residual, _vgg, _preactivation],
    ids=lambda f: f.__name__[1:],
)
def test_networks_of_torch(
    make: Callable[[], tuple[Any, tuple[int, ...]]], dynamo: bool, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net, shape = make()
    for module in net.modules():
        if hasattr(module, "running_var"):
            torch.nn.init.uniform_(module.running_var, 0.3, 2)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.normal_(module.weight, 0, 1)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    net.eval()
    path = tmp_path / "some-net.onnx"
    _export(net, shape, dynamo, path)
    ann = load_onnx(path)
    assert ann.name == "some-net"
    fed = torch.randn(4, *shape)
    with torch.no_grad():
        want = net(fed).numpy()
    got = _scores(ann, fed.numpy())
    if make is _separable:
        got = np.exp(got) / np.exp(got).sum(1, keepdims=True)
    if make is _signal:
        got = got - np.log(np.exp(got).sum(1, keepdims=True))
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
    _same(onnx.load(path), fed.numpy(), make is _separable) if make is not _signal else None
    _check_form(make.__name__, ann)


def _check_form(name: str, ann: Ann) -> None:
    """How many units there are: what belongs together is merged."""
    kinds = [(len(u.terms), u.pool is not None, u.rectified, u.ceiling) for u in ann.units]
    plain = (1, False, True, None)
    scores = (1, False, False, None)
    if name == "_lenet":
        # BatchNorm behind the second pool has negative factors: a unit of its own.
        pooled = (1, True, True, None)
        assert kinds == [pooled, (1, True, False, None), plain, plain, scores]
    if name == "_separable":
        assert kinds == [(1, False, True, 6.0)] * 5 + [plain, scores]
    if name == "_residual":
        assert kinds == [
            plain,
            plain,
            (2, False, True, None),
            plain,
            (2, False, True, None),
            plain,
            scores,
        ]
    if name == "_vgg":
        assert kinds == [*[plain] * 6, scores]
        np.testing.assert_allclose(ann.input.scale, [5, 1 / 0.3, 2.5], rtol=1e-6)
        np.testing.assert_allclose(ann.input.offset, [-2, -0.4 / 0.3, -1], rtol=1e-6)
    if name == "_signal":
        assert ann.input.shape == (1, 54, 3) and ann.input.axes == (-1, 1, 0)


def test_onnxruntime_agrees(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    g = _Graph(2, 9, 9)
    v = g.op("Relu", g.conv("x", 4, 2, (3, 3), pads=[1, 1, 1, 1]))
    v = g.op("MaxPool", v, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    model = g.model(g.dense(g.op("Flatten", v), 100, 3))
    fed = np.random.default_rng(0).normal(0, 1, (4, 2, 9, 9)).astype(np.float32)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    want = session.run(None, {"x": fed})[0]
    got = _scores(load_onnx(model.SerializeToString()), fed)
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


# Graphs as tf2onnx writes them


def test_keras_image_network() -> None:
    g = _Graph(10, 8, 3, kind=TensorProto.UINT8)
    v = g.op("Cast", "x", to=1)
    v = g.op("Div", g.op("Sub", v, g.const([120.0, 110.0, 100.0])), g.const(64.0))
    v = g.op("Transpose", v, perm=[0, 3, 1, 2])
    v = g.conv(v, 4, 3, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    v = g.op("Min", g.op("Max", v, g.const(0.0)), g.const(6.0))
    v = g.op("Pad", v, g.const([0, 0, 0, 1, 0, 0, 1, 0], np.int64))
    v = g.op("Relu", g.conv(v, 6, 4, (2, 2)))
    v = g.op("MaxPool", v, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    v = g.op("Transpose", v, perm=[0, 2, 3, 1])
    shape = g.op("Cast", g.op("Shape", v), to=TensorProto.INT32)
    first = g.op("Slice", shape, *(g.const([n], np.int64) for n in (0, 1)))
    target = g.op("Concat", first, g.const([-1], np.int32), axis=0)
    v = g.op("Reshape", v, g.op("Cast", target, to=TensorProto.INT64))
    v = g.op("Relu", g.op("Add", g.op("MatMul", v, g.weight(36, 7)), g.weight(7)))
    v = g.op("Softmax", g.op("Add", g.op("MatMul", v, g.weight(7, 5)), g.weight(5)))
    fed = np.random.default_rng(0).integers(0, 256, (3, 10, 8, 3)).astype(np.uint8)
    ann = _same(g.model(v), fed, softmax=True)
    assert ann.input.shape == (10, 8, 3) and ann.input.axes == (0, 1, 2)
    np.testing.assert_allclose(ann.input.scale, 1 / 64)
    np.testing.assert_allclose(ann.input.offset, [-120 / 64, -110 / 64, -100 / 64])
    assert ann.units[1].terms[0].linear.padding == (0, 1, 1, 0)  # type: ignore[union-attr]
    assert [u.ceiling for u in ann.units] == [6.0, None, None, None]


def test_keras_signal_network() -> None:
    g = _Graph(20, 3)
    v = g.op("Transpose", "x", perm=[0, 2, 1])
    v = g.op("Unsqueeze", v, g.const([2], np.int64))
    v = g.op("Relu", g.conv(v, 4, 3, (1, 3), auto_pad="SAME_LOWER", strides=[1, 2]))
    v = g.op("Squeeze", v, g.const([2], np.int64))
    v = g.op("Transpose", v, perm=[0, 2, 1])
    v = g.op("ReduceMean", v, axes=[1], keepdims=0)
    ann = _same(g.model(g.dense(v, 4, 3)))
    assert ann.input.shape == (1, 20, 3)


def test_functions_and_constants_of_the_graph_are_inlined() -> None:
    g = _Graph(4, 5, 5, opset=18)
    zero = g.op("CastLike", g.op("Constant", value_float=0.0), "x")
    v = g.op("Max", g.op("block", "x", g.weight(6, 4, 3, 3), domain="local"), zero)
    v = g.op("Flatten", g.op("Dropout", g.op("Identity", v)))
    model = g.model(g.dense(v, 54, 3))
    body = [helper.make_node("Conv", ["a", "w"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("local", "block", ["a", "w"], ["c"], body, opset))
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert len(_same(model).units) == 2


def test_dense_over_the_channels_of_a_map_is_a_pointwise_convolution() -> None:
    g = _Graph(4, 5, 3)
    v = g.op("Relu", g.op("Add", g.op("MatMul", "x", g.weight(3, 6)), g.weight(6)))
    v = g.op("Transpose", v, perm=[0, 3, 1, 2])
    v = g.op("Relu", g.conv(v, 2, 6, (3, 3)))
    ann = _same(g.model(g.dense(g.op("Flatten", v), 12, 3)))
    assert ann.input.axes == (0, 1, 2)


def test_a_vector_that_is_reshaped_to_an_image() -> None:
    for shape, conv in (((-1, 1, 6, 8), 1), ((-1, 6, 8, 1), 1)):
        g = _Graph(48)
        v = g.op("Reshape", g.op("Mul", "x", g.const(2.0)), g.const(shape, np.int64))
        if shape[-1] == 1:
            v = g.op("Transpose", v, perm=[0, 3, 1, 2])
        v = g.op("Relu", g.conv(v, 3, conv, (3, 3)))
        ann = _same(g.model(g.dense(g.op("Flatten", v), 3 * 24, 4)))
        assert ann.input.shape == (6, 8, 1) and ann.input.axes == (0, -1, -1)
        assert ann.input.fed_shape == (48,)


@pytest.mark.parametrize(
    ("fed", "shape"),
    [((30,), (1, 1, 30)), ((6, 5), (6, 5, 1)), ((1, 6, 5), (6, 5, 1)), ((6, 5, 3), (6, 5, 3))],
)
def test_dense_networks(fed: tuple[int, ...], shape: tuple[int, ...]) -> None:
    g = _Graph(*fed)
    v = g.op("Flatten", "x") if len(fed) > 1 else "x"
    n = int(np.prod(fed))
    v = g.op("Relu", g.dense(v, n, 8))
    assert _same(g.model(g.dense(v, 8, 3))).input.shape == shape


def test_opsets_and_fixed_batches() -> None:
    for opset in (13, 18, 22):
        for batch in (1, 4, "N"):
            g = _Graph(1, 6, 6, opset=opset, batch=batch)
            v = g.op("Relu", g.conv("x", 3, 1, (3, 3)))
            if opset >= 18:
                v = g.op("ReduceMean", v, g.const([2, 3], np.int64), keepdims=1)
            else:
                v = g.op("ReduceMean", v, axes=[-1, -2], keepdims=1)
            v = g.op("Reshape", v, g.const([0 if batch == "N" else batch, 3], np.int64))
            _same(g.model(g.dense(v, 3, 4)), batch=batch if isinstance(batch, int) else 3)


# Units


def test_a_map_with_several_readers_is_one_unit() -> None:
    g = _Graph(3, 8, 8)
    v = g.op("Relu", g.conv("x", 4, 3, (3, 3), pads=[1, 1, 1, 1]))
    pooled = g.op("MaxPool", v, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    v = g.op("Relu", g.op("Sub", g.op("Add", v, pooled), g.conv(v, 4, 4, (1, 1))))
    v = g.op("GlobalAveragePool", v)
    ann = _same(g.model(g.dense(g.op("Flatten", v), 4, 3)))
    assert [len(u.terms) for u in ann.units] == [1, 1, 3, 1, 1]
    assert [u.pool is not None for u in ann.units] == [False, True, False, False, False]
    assert ann.units[1].rectified


def test_pool_before_relu_and_pool_of_pools() -> None:
    g = _Graph(2, 12, 12)
    v = g.op(
        "Relu", g.op("MaxPool", g.conv("x", 3, 2, (3, 3)), kernel_shape=[2, 2], strides=[1, 1])
    )
    v = g.op(
        "MaxPool", g.op("MaxPool", v, kernel_shape=[2, 2]), kernel_shape=[2, 2], strides=[2, 2]
    )
    v = g.op("MaxPool", g.op("AveragePool", v, kernel_shape=[2, 2]), kernel_shape=[2, 2])
    ann = _same(g.model(g.dense(g.op("Flatten", v), 12, 3)))
    assert [u.pool is not None for u in ann.units] == [True, True, True, True, False]
    assert all(u.rectified for u in ann.units[:-1])


def test_max_pool_of_the_input_and_global_max_pool() -> None:
    g = _Graph(2, 7, 7)
    v = g.op(
        "MaxPool", g.op("Mul", "x", g.const(-2.0)), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    )
    v = g.op("GlobalMaxPool", g.conv(v, 3, 2, (2, 2)))
    ann = _same(g.model(g.dense(g.op("Flatten", v), 3, 3)))
    assert [u.rectified for u in ann.units] == [False, False, False]


def test_linear_layers_without_activation_and_relu_on_the_scores() -> None:
    g = _Graph(6)
    v = g.op("Relu", g.dense(g.dense("x", 6, 5), 5, 4))
    ann = _same(g.model(v))
    assert [u.rectified for u in ann.units] == [False, True, False]


def test_scores_of_a_convolution_become_dense() -> None:
    g = _Graph(3, 5, 5)
    v = g.op("Relu", g.conv("x", 4, 3, (3, 3)))
    v = g.op("GlobalAveragePool", g.conv(v, 5, 4, (1, 1)))
    ann = _same(g.model(g.op("Softmax", g.op("Flatten", v), axis=1)), softmax=True)
    assert len(ann.units) == 3
    g = _Graph(4, 5, 5)
    v = g.op("Relu", g.conv("x", 4, 2, (3, 3), group=2))
    v = g.conv(v, 4, 2, (5, 5), group=2, pads=[1, 1, 1, 1])
    assert len(_same(g.model(v)).units) == 2


def test_arg_max_at_the_end_is_left_out() -> None:
    g = _Graph(6)
    scores = g.dense("x", 6, 5)
    fed = np.random.default_rng(0).normal(0, 1, (20, 6)).astype(np.float32)
    model = g.model(
        g.op("Cast", g.op("ArgMax", scores, axis=1, keepdims=0), to=6), TensorProto.INT32
    )
    want = ReferenceEvaluator(model).run(None, {"x": fed})[0]
    got = _scores(load_onnx(model.SerializeToString()), fed).argmax(1)
    np.testing.assert_array_equal(got, want)


def test_batch_norm_behind_an_activation_folds_forward_where_it_is_exact() -> None:
    for pads, units in (([0] * 4, 3), ([1] * 4, 4)):
        g = _Graph(2, 6, 6)
        v = g.op("Relu", g.conv("x", 3, 2, (3, 3)))
        var = g.const(g.rng.uniform(0.5, 2, 3))
        v = g.op("BatchNormalization", v, g.weight(3), g.weight(3), g.weight(3), var)
        v = g.op("Relu", g.conv(v, 4, 3, (3, 3), pads=pads))
        n = 4 * (16 if pads[0] else 4)
        ann = _same(g.model(g.dense(g.op("Flatten", v), n, 3)))
        assert len(ann.units) == units


def test_batch_norm_of_the_input_belongs_to_the_input() -> None:
    g = _Graph(3, 6, 6)
    var = g.const(g.rng.uniform(0.5, 2, 3))
    v = g.op("BatchNormalization", "x", g.weight(3), g.weight(3), g.weight(3), var)
    v = g.op("Relu", g.conv(v, 4, 3, (3, 3), pads=[1, 1, 1, 1]))
    ann = _same(g.model(g.dense(g.op("Flatten", v), 144, 3)))
    assert len(ann.units) == 2 and np.ptp(ann.input.scale) > 0 and np.ptp(ann.input.offset) > 0


def test_the_input_read_with_two_affine_maps() -> None:
    g = _Graph(3, 5, 5)
    a = g.conv(g.op("Add", "x", g.const(1.0)), 3, 3, (3, 3), pads=[1, 1, 1, 1])
    b = g.op("Mul", "x", g.const([[[2.0]], [[-1.0]], [[0.5]]]))
    v = g.op("Relu", g.op("Add", a, b))
    ann = _same(g.model(g.dense(g.op("Flatten", v), 75, 3)))
    assert len(ann.units) == 2 and (ann.input.offset == 1).all()


# Quantised networks


def _weight_qdq(
    g: _Graph, shape: tuple[int, ...], kind: int, top: int, axis: int | None = 0
) -> str:
    levels = g.rng.integers(-top, top + 1, shape)
    scale = g.const(2.0 ** -g.rng.integers(2, 5, shape[0])) if axis is not None else g.const(0.125)
    zero = g.const(np.zeros(shape[0] if axis is not None else ()), np.int8, kind)
    more = {} if axis is None else {"axis": axis}
    return g.op("DequantizeLinear", g.const(levels, np.int8, kind), scale, zero, **more)


def _qdq(
    g: _Graph, x: str, scale: float, kind: int = TensorProto.UINT8, zero: int = 0, **more: Any
) -> str:
    pair = (g.const(scale), g.const(zero, np.int32, kind))
    return g.op("DequantizeLinear", g.op("QuantizeLinear", x, *pair, **more), *pair, **more)


def test_eight_bit_qdq() -> None:
    g = _Graph(2, 8, 8, opset=19)
    v = _qdq(g, "x", 1 / 32, zero=128)
    bias = g.op(
        "DequantizeLinear", g.const(g.rng.integers(-500, 500, 4), np.int32), g.const(2.0**-9)
    )
    v = g.op("Conv", v, _weight_qdq(g, (4, 2, 3, 3), TensorProto.INT8, 127), bias)
    v = _qdq(g, g.op("Relu", v), 1 / 16)
    v = _qdq(g, g.op("MaxPool", v, kernel_shape=[2, 2], strides=[2, 2]), 1 / 16)
    v = _qdq(g, g.op("Flatten", v), 1 / 16)
    w = _weight_qdq(g, (3, 36), TensorProto.INT8, 127, None)
    v = _qdq(g, g.op("Gemm", v, w, g.weight(3), transB=1), 0.25, TensorProto.INT8)
    fed = np.random.default_rng(0).integers(-100, 100, (4, 2, 8, 8)).astype(np.float32) / 32
    # The scores are rounded in the graph, not in the network.
    ann = load_onnx(g.model(v).SerializeToString())
    want = ReferenceEvaluator(g.model(v)).run(None, {"x": fed})[0]
    got = _scores(ann, fed)
    np.testing.assert_allclose(np.clip(np.rint(got * 4), -128, 127) / 4, want)
    assert [(u.step, u.ceiling, u.rectified) for u in ann.units] == [
        (1 / 16, 255 / 16, True),
        (None, None, False),
    ]
    assert len(ann.notes) == 2 and "QuantizeLinear" in ann.notes[0]


@pytest.mark.parametrize("kind", ["UINT4", "INT4", "UINT2", "clip", "inner clip", "com.microsoft"])
def test_few_levels(kind: str) -> None:
    low = kind in ("UINT4", "INT4", "UINT2")
    if kind == "UINT2" and not hasattr(TensorProto, "UINT2"):
        pytest.skip("this onnx has no 2-bit types")
    g = _Graph(2, 6, 6, opset=(25 if kind == "UINT2" else 21) if low else 19)
    four = TensorProto.INT4 if low else TensorProto.INT8
    v = g.op("Conv", "x", _weight_qdq(g, (4, 2, 3, 3), four, 7), g.weight(4))
    top = 7
    if low:
        v = _qdq(g, g.op("Relu", v), 0.25, getattr(TensorProto, kind))
        top = {"UINT4": 15, "INT4": 7, "UINT2": 3}[kind]
    elif kind == "clip":
        v = _qdq(g, g.op("Clip", v, g.const(0.0), g.const(7 * 0.25)), 0.25)
    elif kind == "inner clip":
        pair = g.const(0.25), g.const(0, np.uint8)
        q = g.op("QuantizeLinear", v, *pair)
        q = g.op("Clip", q, g.const(0, np.uint8), g.const(7, np.uint8))
        v = g.op("DequantizeLinear", q, *pair)
    else:
        # No reference for this domain: the same graph without it.
        plain = _qdq(g, v, 0.25, TensorProto.UINT16)
        model = g.model(g.dense(g.op("Flatten", plain), 64, 3))
        want = _same(model)
        for node in model.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and "v" in node.input[0]:
                node.domain = "com.microsoft"
        ann = load_onnx(model.SerializeToString())
        assert ann.units[0].ceiling == want.units[0].ceiling == 65535 / 4
        return
    ann = _same(g.model(g.dense(g.op("Flatten", v), 64, 3)))
    assert (ann.units[0].step, ann.units[0].ceiling) == (0.25, top * 0.25)
    assert len(ann.units) == 2


def test_quantisation_written_out_with_round() -> None:
    g = _Graph(2, 6, 6)
    v = g.op("Div", g.conv("x", 4, 2, (3, 3)), g.const(0.25))
    v = g.op("Mul", g.op("Round", g.op("Clip", v, g.const(0.0), g.const(7.0))), g.const(0.25))
    ann = _same(g.model(g.dense(g.op("Flatten", v), 64, 3)))
    assert [(u.step, u.ceiling) for u in ann.units] == [(1.0, 7.0), (None, None)]


def test_an_input_and_scores_of_eight_bits() -> None:
    g = _Graph(2, 6, 6, opset=19, kind=TensorProto.UINT8)
    v = g.op("DequantizeLinear", "x", g.const(0.25), g.const(100, np.uint8))
    v = g.op("Relu", g.conv(v, 3, 2, (3, 3), pads=[1, 1, 1, 1]))
    v = g.dense(g.op("Flatten", v), 108, 4)
    fed = g.rng.integers(0, 256, (3, 2, 6, 6)).astype(np.uint8)
    ann = _same(g.model(v), fed)
    np.testing.assert_array_equal(ann.input.scale, 0.25)
    np.testing.assert_array_equal(ann.input.offset, -25.0)
    v = g.op("QuantizeLinear", v, g.const(0.5), g.const(3, np.int8))
    model = g.model(v, TensorProto.INT8)
    got = _scores(load_onnx(model.SerializeToString()), fed)
    want = ReferenceEvaluator(model).run(None, {"x": fed})[0]
    np.testing.assert_array_equal(np.clip(np.rint(got / 0.5) + 3, -128, 127), want)


def test_levels_of_a_signed_type_that_a_relu_leaves() -> None:
    g = _Graph(5, opset=19)
    v = _qdq(g, g.op("Relu", g.dense("x", 5, 4)), 0.125, TensorProto.INT8)
    ann = _same(g.model(g.dense(v, 4, 3)))
    assert (ann.units[0].step, ann.units[0].ceiling) == (0.125, 127 / 8)


def test_one_quantizer_with_two_readers_and_another_step() -> None:
    g = _Graph(5, opset=19)
    v = _qdq(g, g.op("Relu", g.dense("x", 5, 4)), 0.125)
    a, b = g.dense(v, 4, 3), g.dense(_qdq(g, v, 0.5), 4, 3)
    ann = _same(g.model(g.op("Add", a, b)))
    assert [u.step for u in ann.units] == [0.125, 0.5, None]


# Random graphs


def _random(seed: int) -> Any:
    """A random network of everything that keeps a map a map."""
    g = _Graph(3, 13, 11)
    rng = g.rng = np.random.default_rng(seed)
    x, c, h, w = "x", 3, 13, 11
    shapes: list[tuple[str, int, int, int]] = []
    for _ in range(int(rng.integers(2, 9))):
        kind = rng.choice(
            [
                "conv",
                "conv",
                "depthwise",
                "norm",
                "relu",
                "clip",
                "max",
                "mean",
                "add",
                "scale",
                "turn",
                "pad",
            ]
        )
        if kind in ("conv", "depthwise"):
            k, s, p = int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(0, 2))
            if h + 2 * p < k or w + 2 * p < k:
                continue
            groups = c if kind == "depthwise" else 1
            out = c if kind == "depthwise" else int(rng.integers(1, 6))
            x = g.conv(x, out, c // groups, (k, k), pads=[p] * 4, strides=[s, s], group=groups)
            c, h, w = out, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
        elif kind == "norm":
            scale = g.const(rng.uniform(0.2, 1.5, c) * rng.choice([1, 1, -1], c))
            x = g.op(
                "BatchNormalization",
                x,
                scale,
                g.weight(c),
                g.weight(c),
                g.const(rng.uniform(0.5, 2, c)),
            )
        elif kind == "relu":
            x = g.op("Relu", x)
        elif kind == "clip":
            x = g.op("Clip", x, g.const(0.0), g.const(float(rng.uniform(0.5, 2))))
        elif kind in ("max", "mean"):
            k, s = int(rng.integers(1, 4)), int(rng.integers(1, 3))
            p = int(rng.integers(0, 2)) if k > 1 else 0
            if h + 2 * p < k or w + 2 * p < k:
                continue
            op = "MaxPool" if kind == "max" else "AveragePool"
            more = {} if kind == "max" else {"count_include_pad": 1}
            x = g.op(op, x, kernel_shape=[k, k], strides=[s, s], pads=[p] * 4, **more)
            h, w = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
        elif kind == "add":
            same = [name for name, *shape in shapes if shape == [c, h, w]]
            if not same:
                continue
            x = g.op(str(rng.choice(["Add", "Sub"])), x, str(rng.choice(same)))
        elif kind == "scale":
            value = g.const(rng.normal(0, 1, (c, 1, 1)) if rng.random() < 0.5 else rng.normal())
            x = g.op(
                str(rng.choice(["Add", "Sub", "Mul"])), *([x, value][:: int(rng.choice([1, -1]))])
            )
        elif kind == "turn":
            x = g.op("Transpose", x, perm=[0, 2, 3, 1])
            x = g.op("Relu", x) if rng.random() < 0.5 else x
            x = g.op("Transpose", x, perm=[0, 3, 1, 2])
        else:
            pads = rng.integers(0, 2, 4)
            x = g.op("Pad", x, g.const([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
            h, w = h + int(pads[0] + pads[2]), w + int(pads[1] + pads[3])
        shapes.append((x, c, h, w))
    if rng.random() < 0.3:
        x, h, w = g.op("GlobalAveragePool", x), 1, 1
    if rng.random() < 0.5:
        x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    x = g.dense(g.op("Flatten", x), c * h * w, 4)
    if rng.random() < 0.3:
        x = g.op("Relu", x)
    return g.model(x)


# 1353 pads an axis of length 1; 1564, 2063 and 2347 pad the input behind its affine map.
@pytest.mark.parametrize("seed", [*range(80), 1353, 1564, 2063, 2347])
def test_random_graphs(seed: int) -> None:
    _same(_random(seed))


# What is refused


def _one_line(data: Any, *words: str) -> str:
    with pytest.raises(EdgesnnError) as caught:
        load_onnx(
            data if isinstance(data, bytes | str | Path) else data.SerializeToString(), "net.onnx"
        )
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    for word in words:
        assert word in text, text
    return text


def test_every_offending_node_is_named_at_once() -> None:
    g = _Graph(3, 6, 6)
    v = g.op("Sigmoid", g.conv("x", 4, 3, (3, 3)), name="/act/Sigmoid")
    v = g.op("AveragePool", v, kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="/avg")
    v = g.op("Resize", v, "", g.const([1, 1, 2, 2]), name="/up")
    v = g.op("LSTM", v, g.weight(1), g.weight(1), name="/lstm/LSTM")
    shape = g.op("Concat", g.op("Shape", v), g.const([1], np.int64), axis=0)
    v = g.op("Tanh", g.op("Reshape", v, shape), name="/tanh")
    text = _one_line(
        g.model(v), "net.onnx: 5 nodes", "/act/Sigmoid (Sigmoid)", "/avg (AveragePool: "
    )
    for word in ("/up (Resize)", "/lstm/LSTM (LSTM)", "/tanh (Tanh)", "use ReLU", "feed-forward"):
        assert word in text


def test_names_and_sizes_from_a_damaged_file_stay_harmless() -> None:
    g = _Graph(3, 6, 6)
    _one_line(
        g.model(g.op("Tanh", g.conv("x", 4, 3, (3, 3)), name="two\nlines")), "two?lines (Tanh)"
    )
    g = _Graph(3, 6, 6)
    v = g.conv("x", 4, 3, (3, 3), pads=[10**6] * 4, name="wide")
    _one_line(g.model(g.op("GlobalAveragePool", v)), "wide (Conv: makes a map of ")
    _one_line(_Graph(1, 10**5, 10**5).model("x"), "its graph is empty")
    g = _Graph(1, 10**5, 10**5)
    _one_line(g.model(g.op("GlobalAveragePool", "x")), "input x has more than ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    g = _Graph(5)
    data = g.model(g.dense("x", 5, 3)).SerializeToString()
    for cut in (data[: len(data) // 2], data[:-3], b"", b"hello", b"\x00" * 100, b"PK\x03\x04zip"):
        _one_line(cut, "is no ONNX file, or is cut short")
    with pytest.raises(UsageError, match="cannot be read"):
        load_onnx(tmp_path / "none.onnx")
    path = tmp_path / "big.onnx"
    big = _Graph(5)
    v = big.dense("x", 5, 300)
    onnx.save(big.model(v), path, save_as_external_data=True, location="big.data", size_threshold=0)
    assert len(load_onnx(path).units) == 1
    _one_line(path.read_bytes(), "load it by its path", "big.data")
    (tmp_path / "big.data").write_bytes(b"123")
    _one_line(path, "cannot be read")
    (tmp_path / "big.data").unlink()
    _one_line(path, "big.data", "missing")


def test_without_the_onnx_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def none(name: str, *more: Any) -> Any:
        if name == "onnx":
            raise ImportError("No module named 'onnx'")
        return found(name, *more)

    monkeypatch.setattr(builtins, "__import__", none)
    _one_line(b"", "reading ONNX needs the onnx package", "pip install 'edgesnn[onnx]'")


def _dynamic(g: _Graph) -> Any:
    g.fed = (3, "height", 6)  # type: ignore[assignment]
    return g.model(g.conv("x", 2, 3, (3, 3)))


def _two_inputs(g: _Graph) -> Any:
    model = g.model(g.op("Add", "x", "y"))
    model.graph.input.append(helper.make_tensor_value_info("y", 1, ["N", 3, 6, 6]))
    return model


def _two_outputs(g: _Graph) -> Any:
    model = g.model(g.op("Relu", g.conv("x", 2, 3, (3, 3))))
    model.graph.output.append(helper.make_tensor_value_info("v0", 1, None))
    return model


def _nan(g: _Graph) -> Any:
    return g.model(g.op("Conv", "x", g.const(np.full((2, 3, 3, 3), np.nan)), name="first"))


def _old(g: _Graph) -> Any:
    g.opset = 12
    return g.model(g.conv("x", 2, 3, (3, 3)))


def _wrong_rank(g: _Graph) -> Any:
    g.fed = (3, 6, 6, 6)
    return g.model(g.conv("x", 2, 3, (3, 3, 3)))


def _broadcast(g: _Graph) -> Any:
    v = g.conv("x", 2, 3, (3, 3))
    return g.model(g.op("Add", v, g.op("GlobalAveragePool", v), name="sum"))


def _moving_weight(g: _Graph) -> Any:
    v = g.op("Flatten", "x")
    return g.model(g.op("MatMul", v, g.op("Transpose", v, perm=[0, 1]), name="attention"))


def _string_input(g: _Graph) -> Any:
    g.kind = TensorProto.STRING
    return g.model(g.op("Relu", "x"))


def _empty(g: _Graph) -> Any:
    return g.model("x")


def _no_layers(g: _Graph) -> Any:
    return g.model(g.op("Flatten", g.op("Relu", "x")))


def _map_out(g: _Graph) -> Any:
    return g.model(g.conv("x", 2, 3, (3, 3)))


def _pixels(g: _Graph) -> Any:
    v = g.op("Sub", "x", g.weight(3, 6, 6), name="mean_image")
    return g.model(g.conv(v, 2, 3, (6, 6)))


def _dilated_pool(g: _Graph) -> Any:
    return g.model(
        g.op("MaxPool", g.conv("x", 2, 3, (3, 3)), kernel_shape=[2, 2], dilations=[2, 2])
    )


def _gate(g: _Graph) -> Any:
    v = g.conv("x", 2, 3, (3, 3))
    return g.model(g.op("Mul", v, g.op("Relu", v), name="gate"))


def _inner_softmax(g: _Graph) -> Any:
    v = g.op("Softmax", g.dense(g.op("Flatten", "x"), 108, 4), axis=1, name="attend")
    return g.model(g.dense(v, 4, 3))


def _leaky(g: _Graph) -> Any:
    return g.model(
        g.op("Clip", g.conv("x", 2, 3, (6, 6)), g.const(-1.0), g.const(1.0), name="tanh")
    )


def _wrong_width(g: _Graph) -> Any:
    return g.model(g.dense(g.op("Flatten", "x"), 100, 4))


def _wrong_channels(g: _Graph) -> Any:
    return g.model(g.conv("x", 2, 4, (3, 3)))


def _no_weight(g: _Graph) -> Any:
    return g.model(g.op("Conv", "x", name="bare"))


def _undefined(g: _Graph) -> Any:
    return g.model(g.op("Relu", "nowhere", name="lost"))


def _cut_free(g: _Graph) -> Any:
    return g.model(
        g.op("Reshape", g.conv("x", 2, 3, (3, 3)), g.const([32, -1], np.int64), name="mix")
    )


def _few_input_levels(g: _Graph) -> Any:
    g.opset = 21
    return g.model(g.conv(_qdq(g, "x", 0.1, TensorProto.INT4), 2, 3, (6, 6)))


def _few_sum_levels(g: _Graph) -> Any:
    g.opset = 21
    v = _qdq(g, g.conv("x", 2, 3, (3, 3)), 0.1, TensorProto.INT4)
    return g.model(g.conv(g.op("Relu", v), 2, 2, (4, 4)))


def _channel_levels(g: _Graph) -> Any:
    pair = g.const([0.1, 0.2]), g.const([0, 0], np.uint8)
    q = g.op("QuantizeLinear", g.op("Relu", g.conv("x", 2, 3, (3, 3))), *pair, axis=1)
    return g.model(g.op("DequantizeLinear", q, *pair, axis=1))


def _ceil_average(g: _Graph) -> Any:
    v = g.conv("x", 2, 3, (2, 2))
    v = g.op("AveragePool", v, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, name="avg")
    return g.model(v)


def _cast(g: _Graph) -> Any:
    return g.model(g.conv(g.op("Cast", g.op("Cast", "x", to=6), to=1), 2, 3, (6, 6)))


def _whole_numbers(g: _Graph) -> Any:
    g.kind = TensorProto.UINT8
    v = g.op("Cast", g.op("Div", "x", g.const(255, np.uint8), name="div"), to=1)
    return g.model(g.conv(v, 2, 3, (6, 6)))


def _random_constant(g: _Graph) -> Any:
    return g.model(
        g.op("Add", g.conv("x", 2, 3, (6, 6)), g.op("RandomNormal", shape=[1], name="noise"))
    )


def _foreign(g: _Graph) -> Any:
    return g.model(
        g.op("FusedConv", "x", g.weight(2, 3, 3, 3), domain="com.microsoft", name="fused")
    )


def _training(g: _Graph) -> Any:
    x = g.conv("x", 2, 3, (3, 3))
    four = [g.const([1.0, 1.0]) for _ in range(4)]
    return g.model(g.op("BatchNormalization", x, *four, training_mode=1, name="norm"))


def _large_window(g: _Graph) -> Any:
    return g.model(g.conv("x", 2, 3, (9, 9)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_dynamic, "no fixed size (axis height); export it with only the batch axis free"),
        (_two_inputs, "has 2 inputs (x, y)"),
        (_two_outputs, "has 2 outputs (v1, v0)"),
        (_nan, "first (Conv: its weight holds NaN or infinity)"),
        (_old, "opset 12, too old"),
        (_wrong_rank, "has 5 axes"),
        (_broadcast, "sum (Add: its inputs are of shapes (N, 2, 4, 4) and (N, 2, 1, 1)"),
        (_moving_weight, "attention (MatMul: its weight is not constant)"),
        (_string_input, "input x is of type string"),
        (_empty, "its graph is empty"),
        (_no_layers, "holds no Conv, Gemm or MatMul"),
        (_map_out, "its output is a map of shape (N, 2, 4, 4)"),
        (_pixels, "mean_image (Sub: its constant differs from pixel to pixel"),
        (_dilated_pool, "its window is dilated"),
        (_gate, "gate (Mul: multiplies two maps"),
        (_inner_softmax, "attend (Softmax: stands inside the network"),
        (_leaky, "tanh (Clip: bounds from below at -1"),
        (_wrong_width, "its weight reads 100 values, its input has 108"),
        (_wrong_channels, "its weight reads 4 channels, its input has 3"),
        (_no_weight, "bare (Conv: an input or attribute is missing"),
        (_undefined, "lost (Relu: reads nowhere, which nothing before it gives)"),
        (_cut_free, "mix (Reshape: does not leave the batch axis alone"),
        (_few_input_levels, "quantises the input to 16 levels"),
        (_few_sum_levels, "quantises a value that no ReLU bounds from below to 16 levels"),
        (_channel_levels, "quantises an activation per channel"),
        (_ceil_average, "avg (AveragePool: its last window reaches over the border"),
        (_cast, "casts to int32"),
        (_whole_numbers, "div (Div: computes with whole numbers"),
        (_random_constant, "noise (RandomNormal)"),
        (_foreign, "fused (FusedConv)"),
        (_training, "norm (BatchNormalization: is in training mode"),
        (_large_window, "its window is larger than its input"),
    ],
    ids=lambda v: v.__name__[1:] if callable(v) else "",
)
def test_refused(make: Callable[[_Graph], Any], words: str) -> None:
    _one_line(make(_Graph(3, 6, 6)), "net.onnx: ", words)


def test_damaged_bytes_never_end_in_a_traceback() -> None:
    g = _Graph(2, 6, 6)
    v = g.op("Relu", g.conv("x", 3, 2, (3, 3), pads=[1, 1, 1, 1]))
    v = g.op("MaxPool", v, kernel_shape=[2, 2], strides=[2, 2])
    data = g.model(g.dense(g.op("Flatten", v), 27, 3)).SerializeToString()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 2):
            damaged[at] = int(rng.integers(0, 256))
        try:
            load_onnx(bytes(damaged))
        except EdgesnnError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


def test_forward_rounds_half_up_and_knows_its_ceiling() -> None:
    g = _Graph(4)
    ann = load_onnx(g.model(g.op("Relu", g.dense("x", 4, 3))).SerializeToString())
    unit = replace(ann.units[0], step=0.5, ceiling=2.0)
    ann = replace(ann, units=(unit, *ann.units[1:]))
    values = forward(ann, np.random.default_rng(0).normal(0, 3, (50, 1, 1, 4)))[unit.name]
    assert set(values.ravel()) <= {0, 0.5, 1, 1.5, 2}
