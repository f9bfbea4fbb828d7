"""The points that bounds are about: what was trained on, and what was held out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certify_cli import common

if TYPE_CHECKING:
    from analysis import HeldOut
    from certify.data import Dataset


@dataclass(frozen=True)
class Samples:
    """Training points; what was held out of the test points and of the certified ones (None: nothing).

    ``why`` nothing of the test points was.
    """

    train: Dataset
    test: HeldOut | None
    certified: HeldOut | None
    why: str = ""


def samples(
    header: Any, data: str | None, certified: Dataset | None, root: Path | None, points: int
) -> Samples:
    """``data`` is what the model was trained on; else it is what its checkpoint names, or the run certified.

    Test points are the test split of what the run certified. They, and the certified inputs, are compared
    with every training row, of which the bounds then use ``points``.
    """
    import analysis
    from certify.errors import CertifyError

    def split(named: str | None, which: str, limit: int | None = None) -> Dataset:
        found = common.open_data(header, named, split=which, root=root, limit=limit, skip=0)
        found.need_labels("a bound on the risk is about how often the true class is missed")
        return found

    trained = data or (header.dataset.get("name") if header is not None else None)
    name = None if certified is None else certified.name
    test = split(name or trained, "test")
    why = (
        f"nothing shows that {test.name} was not trained on; give a run on a test file, and the training "
        "file with --data"
    )
    try:
        seen = split(trained or name, "train")
    except CertifyError as error:
        if data is not None or name is None:
            raise
        train = split(name, "train", points)
        return Samples(
            train, None, None, f"the training data is not there ({error.what}); name it with --data"
        )
    found = analysis.held_out(seen, test)
    if len(found) == 0 and (trained or name) != test.name:
        why = f"{found.says()} of {seen.name}"
    kept = None if certified is None else analysis.held_out(seen, certified)
    return Samples(seen.part(limit=points), found if len(found) else None, kept if kept else None, why)
