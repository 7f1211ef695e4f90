"""Data sets by name or path: `load("digits", "test")`, `load_recording("fsdd", "test")`."""

from edgesnn.data.dataset import Dataset
from edgesnn.data.loading import data_folder, load, names
from edgesnn.data.recording import Recording
from edgesnn.data.recordings import load_recording

__all__ = ["Dataset", "Recording", "data_folder", "load", "load_recording", "names"]
