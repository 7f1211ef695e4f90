"""What cannot be converted, gathered so that one line names all of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgesnn.targets.errors import EdgesnnError

_SMOOTH = frozenset({"Erf", "Gelu", "Mish", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh"})
_BENT = frozenset({"Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Selu"})
ACTIVATIONS = _SMOOTH | _BENT | {"ThresholdedRelu"}
_RECURRENT = frozenset({"GRU", "LSTM", "RNN", "Loop", "Scan"})
_NORMS = frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization", "LRN"})


class Refusal(Exception):
    """One node cannot be converted; the message says why and what to do. Empty: the operator is unknown."""


@dataclass
class Offences:
    """The nodes that cannot be converted, in the order of the graph."""

    found: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, node: str, operator: str, reason: str) -> None:
        """Note one node, its operator and why; an empty reason says that the operator is not known."""
        self.found.append((node, operator, reason))

    def raise_if_any(self, file: str) -> None:
        """Raise EdgesnnError with one line for all of them."""
        if not self.found:
            return
        count = len(self.found)
        listed = [
            f"{node} ({operator}{': ' if why else ''}{why})" for node, operator, why in self.found
        ]
        line = f"{file}: {count} node{'s' * (count > 1)} cannot be converted: {', '.join(listed)}"
        unknown = {operator for _, operator, why in self.found if not why}
        advice = []
        if unknown & ACTIVATIONS:
            advice.append("use ReLU or ReLU6 and train again")
        if unknown & _RECURRENT:
            advice.append("only feed-forward networks convert")
        if unknown & _NORMS:
            advice.append("use BatchNormalization")
        if unknown - ACTIVATIONS - _RECURRENT - _NORMS:
            advice.append("docs/ONNX.md lists the operators that are read")
        raise EdgesnnError("; ".join([line, *advice]))
