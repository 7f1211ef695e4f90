"""A node of an ONNX graph together with the values that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesnn.compiler.onnx_import.read import Source
from edgesnn.compiler.onnx_import.refusal import Refusal
from edgesnn.compiler.onnx_import.tensor import Quantized, Tensor, Value
from edgesnn.compiler.onnx_import.units import Units

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Node:
    """values: in the order of the inputs, None for one left out. types: element types of constants by name."""

    proto: NodeProto
    label: str
    values: list[Value | None]
    types: dict[str, str]
    source: Source
    units: Units

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute; strings as str."""
        from onnx import helper

        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def has(self, index: int) -> bool:
        """True if an optional input is given."""
        return index < len(self.values) and self.values[index] is not None

    def tensor(self, index: int = 0) -> Tensor:
        """An input that depends on what the network is fed."""
        value = self.values[index]
        if isinstance(value, Quantized):
            raise Refusal("computes with quantised integers; put a DequantizeLinear before it")
        if not isinstance(value, Tensor):
            raise Refusal(f"its input {index} is a constant")
        return value

    def array(self, index: int, what: str) -> np.ndarray:
        """A constant input, as it is."""
        value = self.values[index]
        if not isinstance(value, np.ndarray):
            raise Refusal(f"its {what} is not constant")
        return value

    def numbers(self, index: int, what: str) -> np.ndarray:
        """A constant input as float64; Refusal if it is not finite."""
        value = np.asarray(self.array(index, what)).astype(np.float64)
        if not np.isfinite(value).all():
            raise Refusal(f"its {what} holds NaN or infinity")
        return value

    def integers(self, index: int, name: str) -> list[int] | None:
        """A list: input `index`, or an attribute in older opsets; None if neither is given."""
        if self.has(index):
            return [int(v) for v in self.array(index, name).ravel()]
        found = self.attribute(name)
        return None if found is None else [int(v) for v in found]

    @property
    def layer(self) -> str:
        """What a unit that begins here is called: the module's path if the exporter kept it."""
        weight = self.proto.input[1] if len(self.proto.input) > 1 else ""
        if weight.endswith(".weight") and len(weight) > 7:
            return weight[:-7]
        parts = [p for p in self.label.split("/") if p]
        return "_".join(parts[:-1]) if len(parts) > 1 else self.label
