"""The walk over an ONNX graph: constants are computed, every other node goes to its entry of OPERATORS."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesnn.compiler.ann import Ann
from edgesnn.compiler.onnx_import.node import Node
from edgesnn.compiler.onnx_import.operators import ENDINGS, OPERATORS, PASSING
from edgesnn.compiler.onnx_import.quantized import dequantize, quantize
from edgesnn.compiler.onnx_import.read import ANY_BATCH, Source, array, dtype_name
from edgesnn.compiler.onnx_import.refusal import Offences, Refusal
from edgesnn.compiler.onnx_import.tensor import Open, Quantized, Scores, Tensor, Unknown, Value
from edgesnn.compiler.onnx_import.units import Units
from edgesnn.targets.errors import EdgesnnError

if TYPE_CHECKING:
    from onnx import NodeProto

# The operators of these domains; com.microsoft has QuantizeLinear for 4 and 16 bits before opset 21.
_DOMAINS = {"": None, "ai.onnx": None, "com.microsoft": {"QuantizeLinear", "DequantizeLinear"}}
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")
_NOT_FOLDED = frozenset({*_RANDOM, "RandomNormalLike", "RandomUniformLike", "If", "Loop", "Scan"})
_MAX_CONSTANT = 1 << 28  # values; more is a shape gone wrong


def network(source: Source) -> Ann:
    """The network that a graph computes; EdgesnnError naming all nodes that stand in the way."""
    walk = _Walk(source)
    walk.run()
    walk.offences.raise_if_any(source.file)
    output = walk.values.get(source.output_name)
    if isinstance(output, Scores):
        output = output.tensor
    if isinstance(output, Quantized):
        output = output.tensor
    if not isinstance(output, Tensor):
        raise EdgesnnError(
            f"{source.file}: its output {source.output_name} is not computed from its input"
        )
    if walk.layers == 0:
        raise EdgesnnError(
            f"{source.file}: holds no Conv, Gemm or MatMul layer; there is nothing to convert"
        )
    if len(output.axes) > 1 and sum(n > 1 for n in walk.units.dims(output)) > 1:
        dims = ", ".join(map(str, walk.units.dims(output)))
        raise EdgesnnError(
            f"{source.file}: its output is a map of shape (N, {dims}); convert a classifier, one score a class"
        )
    try:
        return walk.units.finished(source.name, output)
    except Refusal as refusal:
        raise EdgesnnError(f"{source.file}: {refusal}") from None


class _Walk:
    """Values by name, and what was found on the way."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.units = Units(source.fed_shape)
        self.offences = Offences()
        self.layers = 0
        self.types = dict(source.types)
        self.values: dict[str, Value] = dict(source.constants)
        self.values[source.input_name] = self.units.fed()
        self.endings = self._endings()

    def run(self) -> None:
        """Visit every node; what cannot be converted is noted and the walk goes on, to find all of it."""
        for proto in self.source.nodes:
            label = proto.name or next(o for o in proto.output if o)
            try:
                results = self._visit(proto, label)
            except Refusal as refusal:
                self.offences.add(label, proto.op_type, str(refusal))
                results = self._after_refusal(proto)
            except (
                ArithmeticError,
                AttributeError,
                LookupError,
                MemoryError,
                TypeError,
                ValueError,
            ):
                reason = "an input or attribute is missing or of the wrong kind; export it again"
                self.offences.add(label, proto.op_type, reason)
                results = self._after_refusal(proto)
            for name, value in zip(proto.output, results, strict=False):
                if name:
                    self.values[name] = value

    def _visit(self, proto: NodeProto, label: str) -> tuple[Value, ...]:
        undefined = [i for i in proto.input if i and i not in self.values]
        if undefined:
            raise Refusal(f"reads {undefined[0]}, which nothing before it gives")
        values = [self.values[i] if i else None for i in proto.input]
        known = _DOMAINS.get(proto.domain, set())
        if proto.domain not in _DOMAINS or (known is not None and proto.op_type not in known):
            raise Refusal("")
        node = Node(proto, label, values, self.types, self.source, self.units)
        if all(v is None or isinstance(v, np.ndarray) for v in values):
            if proto.op_type not in _NOT_FOLDED:
                return self._folded(node)
            raise Refusal("")
        unknown = [v for v in values if isinstance(v, Unknown)]
        if proto.op_type in ("Shape", "Size") and unknown:
            return (Unknown(shape=True),)
        if all(v is None or isinstance(v, np.ndarray) or v == Unknown(True) for v in values):
            return tuple(Unknown(shape=True) for _ in proto.output)
        if proto.op_type not in OPERATORS:
            raise Refusal("")
        if unknown:
            return tuple(Unknown() for _ in proto.output)
        fed = next(v for v in values if v is not None and not isinstance(v, np.ndarray))
        if proto.op_type in ENDINGS:
            if proto.output[0] not in self.endings:
                raise Refusal("stands inside the network; it is read at the end alone")
        elif isinstance(fed, Scores):
            return tuple(fed for _ in proto.output)
        result = OPERATORS[proto.op_type](node)
        if proto.op_type in ("Conv", "Gemm", "MatMul"):
            self.layers += 1
        if self.source.readers[proto.output[0]] > 1:
            result = self._shared(result)
        return (result,)

    def _shared(self, value: Value) -> Value:
        """A unit in the making that several nodes read is finished: each would compute it again."""
        if isinstance(value, Quantized):
            inner = value.tensor
            closed = Tensor(self.units.close(inner.state), inner.axes)
            return Quantized(closed, value.scale, value.zero, value.applied)
        if isinstance(value, Tensor) and isinstance(value.state, Open):
            return Tensor(self.units.close(value.state), value.axes)
        return value

    def _after_refusal(self, proto: NodeProto) -> tuple[Value, ...]:
        """After an unknown activation the walk goes on as if it were none, so that later nodes are checked."""
        first = self.values.get(proto.input[0]) if proto.input else None
        if proto.op_type in PASSING and isinstance(first, Tensor):
            return (first,)
        return tuple(Unknown() for _ in proto.output)

    def _endings(self) -> set[str]:
        """Nodes after which nothing but views, Softmax and ArgMax comes."""
        found = set()
        wanted = self.source.output_name
        for proto in reversed(self.source.nodes):
            if wanted not in proto.output:
                continue
            if proto.op_type not in ENDINGS | {"Cast", "Flatten", "Identity", "Reshape", "Squeeze"}:
                break
            found.add(proto.output[0])
            wanted = proto.input[0]
        return found

    def _folded(self, node: Node) -> tuple[Value, ...]:
        """The results of a node that reads constants alone, by ONNX's own reference implementation."""
        from onnx import ValueInfoProto, helper
        from onnx.reference import ReferenceEvaluator

        proto = node.proto
        if proto.op_type == "Constant":
            for attribute in proto.attribute:
                if attribute.name == "value":
                    self.types[proto.output[0]] = dtype_name(attribute.t.data_type)
                    return (array(attribute.t),)
        if proto.op_type == "Identity":
            self.types[proto.output[0]] = self.types.get(proto.input[0], "")
            return (node.array(0, "input"),)
        if proto.op_type == "QuantizeLinear":
            return (quantize(node),)
        if proto.op_type == "DequantizeLinear":
            return (dequantize(node),)
        feeds = {name: value for name, value in zip(proto.input, node.values, strict=True) if name}
        if proto.op_type in ("ConstantOfShape", "Expand", "Range", "Resize", "Tile"):
            small = [v for v in feeds.values() if isinstance(v, np.ndarray) and v.size <= 8]
            if any(
                prod(max(1, int(n)) for n in v.ravel()) > _MAX_CONSTANT
                or (np.abs(v.astype(np.float64)) >= ANY_BATCH).any()
                for v in small
            ):
                raise Refusal("makes a constant whose size depends on the batch")
        graph = helper.make_graph(
            [proto],
            "constant",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(_plain(v)), None)
                for n, v in feeds.items()
            ],
            [ValueInfoProto(name=o) for o in proto.output if o],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.source.opset)])
        try:
            results: list[Any] = ReferenceEvaluator(model).run(None, feeds)  # type: ignore[assignment]
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Refusal(f"cannot be computed from its constants: {reason}") from None
        found = iter(results)
        return tuple(np.asarray(next(found)) if o else Unknown() for o in proto.output)


def _plain(value: Any) -> np.dtype[Any]:
    return np.dtype(value.dtype)
