"""Data sets by name or path, as tensors with a declared range and grid.

``load("mnist")`` reads one split; ``names()`` lists what is known by name.
"""

from certify.data.dataset import Dataset
from certify.data.loading import load, names

__all__ = ["Dataset", "load", "names"]
