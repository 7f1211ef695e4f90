"""From an ordinary network to a program of canonic signed spikes (or of rates), measured on data.

`convert` does it, `Conversion.save` and `load_converted` keep it. torch is imported when it is needed.
"""

from edgesnn.conversion.archive import is_converted, load_converted
from edgesnn.conversion.conversion import Conversion, convert
from edgesnn.conversion.samples import raw_samples
from edgesnn.conversion.simulate import Simulation, simulate

__all__ = [
    "Conversion",
    "Simulation",
    "convert",
    "is_converted",
    "load_converted",
    "raw_samples",
    "simulate",
]
