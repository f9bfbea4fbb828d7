"""Data sets by name or path, as tensors with a declared range and grid.

``load("mnist")`` reads one split; ``names()`` lists what is known by name. ``as_dataset`` makes one of a
torch loader, a list, a table or pictures in memory, ``gather`` only takes the arrays out of them.
"""

from certify.data.adapter import as_dataset
from certify.data.dataset import Dataset
from certify.data.gathering import Gathered, gather
from certify.data.loading import load, names

__all__ = ["Dataset", "Gathered", "as_dataset", "gather", "load", "names"]
