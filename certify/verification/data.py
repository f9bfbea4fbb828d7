"""Level 3: are the inputs and labels of the records those of the data set, read again?

Every record is compared, not a subset: hashes cost little beside samples. Of segmented images the label maps
themselves are compared, since scores are computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from certify.inputs import Rows, is_image, label_name
from certify.store.read import StoredRun
from certify.verification.outcome import Check

#: Opens the run's data set: hashes of the inputs and labels of these ids.
OpenRows = Callable[[Iterable[int]], Rows]


def data_checks(stored: StoredRun, rows: OpenRows) -> Iterator[Check]:
    """Whether each record is about the input and the label that the data set has under its id.

    Raises what ``rows`` raises, and EvidenceFails naming the first record that is about others.
    """
    found = rows([r.index for r in stored.run])
    found.refuse_other(stored.run, stored.path, resuming=False)
    other = next((r.index for r in stored.run if is_image(r) and _other_map(stored, r.index, found)), None)
    detail = f"the label map of image {other} is not the one in the data set: its labels were changed"
    yield Check(
        "data", other is None, "inputs and labels are those of the data set" if other is None else detail
    )


def _other_map(stored: StoredRun, index: int, found: Rows) -> bool:
    from certify.dense.maps import arrays_name

    target, expected = (stored.arrays(arrays_name(index)) or {}).get("target"), found.labels[index]
    return target is not None and expected is not None and label_name(target) != expected
