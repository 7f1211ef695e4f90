"""Data sets by name or path: `load("digits", "test")`."""

from edgesnn.data.dataset import Dataset
from edgesnn.data.loading import NAMES, data_folder, load

__all__ = ["NAMES", "Dataset", "data_folder", "load"]
