"""An attack on a base model in one file: every outcome, the arrays that were found, and what was asked.

Everything in it is a plain number or text. Reading it runs no code, and proves nothing by itself: whoever
wants to rely on a saved input asks the model again.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from attacks.outcomes import AttackOutcome, AttackRun
from attacks.threat import Threat
from certify.calls import checked
from certify.errors import CertifyError, InvalidSetting, UnreadableFile
from certify.files import write_atomically
from certify.files.npz import read_npz

_KIND = "saved attack"
_REMEDY = "write it with attacks.save or `certify attack --model ckpt.pt --out adv.npz`"


@checked
def save(run: AttackRun, path: str | os.PathLike[str]) -> None:
    """Write ``run`` to ``path``, a .npz file.

    Arrays: ``index`` (n,), ``label`` (n,) the classes that were to be changed, ``broken`` (n,),
    ``distance`` (n,) in the threat's norm (NaN where nothing was confirmed), ``x_adv`` (n, *shape) the
    confirmed inputs (NaN elsewhere), ``outcomes`` and ``threat`` as JSON in bytes, ``mask``, ``low`` and
    ``high`` where the threat has them. Raises InvalidSetting for another ending.
    """
    place = check_ending(Path(path))
    found = [o.adversarial for o in run if o.adversarial is not None]
    shape = found[0].shape if found else ()
    blank = np.full(shape, np.nan, dtype=found[0].dtype if found else np.float32)
    stacked = [blank if o.adversarial is None else o.adversarial for o in run]
    arrays: dict[str, np.ndarray] = {
        "index": np.array([o.index for o in run], dtype=np.int64),
        "label": np.array([o.target for o in run], dtype=np.int64),
        "broken": np.array([o.broken for o in run], dtype=bool),
        "distance": np.array([np.nan if o.distance is None else o.distance for o in run], dtype=np.float64),
        "x_adv": np.stack(stacked) if stacked else np.zeros((0,), dtype=np.float32),
        "outcomes": _text([o.to_json() for o in run]),
        "threat": _text(_said(run)),
    }
    if run.threat.mask is not None:
        arrays["mask"] = run.threat.mask.numpy()
    if run.threat.ranged:
        arrays["low"], arrays["high"] = (bound.numpy() for bound in run.threat.bounds)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(place, buffer.getvalue())


def check_ending(path: Path) -> Path:
    """``path``, if attacks are kept under such a name. Raises InvalidSetting."""
    if path.suffix != ".npz":
        raise InvalidSetting(
            f"{path.name} has no known ending", why="attacks are kept as .npz", remedy="name it .npz"
        )
    return path


@checked
def load(path: str | os.PathLike[str]) -> AttackRun:
    """The attack that ``save`` wrote. Raises UnreadableFile for anything else."""
    place = Path(path)
    arrays = read_npz(place)
    try:
        rows, said = (json.loads(arrays[name].tobytes()) for name in ("outcomes", "threat"))
        bounds = (arrays["low"], arrays["high"]) if "low" in arrays else said["bounds"]
        threat = Threat(said["norm"], said["eps"], bounds, mask=arrays.get("mask"), grid=said["grid"])
        broken, x_adv = arrays["broken"], arrays["x_adv"]
        if not len(rows) == len(broken) == len(x_adv) == len(arrays["index"]):
            raise ValueError("its arrays differ in length")
        outcomes = [
            AttackOutcome.from_json(row, x_adv[k] if broken[k] else None) for k, row in enumerate(rows)
        ]
    except CertifyError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableFile(f"{place} is no {_KIND}", why=f"it cannot be read as one ({error!r})",
                             remedy=_REMEDY) from error  # fmt: skip
    return AttackRun(outcomes, threat, str(said["preset"]), flags=dict(said["flags"]))


def _text(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _said(run: AttackRun) -> dict[str, Any]:
    threat = run.threat
    bounds = None if threat.bounds is None or threat.ranged else list(threat.bounds)
    return {"norm": threat.norm_name, "eps": threat.eps, "bounds": bounds, "grid": threat.grid,
            "preset": run.preset, "flags": run.flags}  # fmt: skip
