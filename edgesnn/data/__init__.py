"""Data sets by name or path: `load("digits", "test")`."""

from edgesnn.data.dataset import Dataset
from edgesnn.data.loading import data_folder, load, names

__all__ = ["Dataset", "data_folder", "load", "names"]
