"""`edgesnn profile`: what an inference costs and where its time goes, as a table, JSON and one HTML page."""

from edgesnn.profiling.compare import together
from edgesnn.profiling.folder import PAGE, check_report_folder, write_report
from edgesnn.profiling.profile import profile
from edgesnn.profiling.signal import find_signal
from edgesnn.profiling.spread import spread

__all__ = [
    "PAGE",
    "check_report_folder",
    "find_signal",
    "profile",
    "spread",
    "together",
    "write_report",
]
