"""Integrate-and-fire neurons: LIF neurons that do not leak."""

from __future__ import annotations

from edgesnn.neurons.lif import Lif


class If(Lif):
    """U[t] = R[t-1] + I[t],  S[t] = H(U[t] - V_th),  R[t] after a soft or hard reset as in `lif`."""

    def __init__(
        self,
        v_threshold: float = 1.0,
        width: float = 1.0,
        *,
        reset: str = "soft",
        surrogate_name: str = "triangle",
    ) -> None:
        super().__init__(1.0, v_threshold, width, reset=reset, surrogate_name=surrogate_name)
