"""Energy by the formulas of the LE/TAD paper (eqs. 15-17): estimates, not measurements."""

from __future__ import annotations

from typing import Any

E_MAC = 4.6  # pJ, a 32-bit floating-point multiply-accumulate in 45 nm CMOS
E_AC = 0.9  # pJ, an accumulate
CHIPS = {"TrueNorth": (0.6, 0.4), "SpiNNaker": (0.36, 0.64)}  # static, dynamic


def energy(
    macs: dict[str, int],
    encoder: str,
    sops: float,
    steps: float,
    spikes: float,
    full: tuple[float, float],
) -> dict[str, Any]:
    """Estimates of one inference.

        E_ANN = 4.6 pJ * sum of all layers' multiply-accumulates                                  (15)
        E_SNN = 4.6 pJ * the first layer's multiply-accumulates + 0.9 pJ * synaptic operations     (16)
        E     = static * steps / steps' + dynamic * spikes / spikes'                               (17)

    macs: dense multiply-accumulates by layer; sops, steps, spikes: means up to the exit; full: steps' and
    spikes' of the same net without an exit, to which (17) is normalised (the paper takes another method's).
    """
    ann = E_MAC * sum(macs.values())
    snn = E_MAC * macs[encoder] + E_AC * sops
    chips = {
        name: static * steps / full[0] + dynamic * (spikes / full[1] if full[1] else 0.0)
        for name, (static, dynamic) in CHIPS.items()
    }
    return {"ann_pj": ann, "snn_pj": snn, "ratio": snn / ann, "normalised": chips}
