"""A few attacked inputs shown: the input, a noisy sample, the adversarial example, the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.errors import CertifyError
from reports.evidence import Evidence
from reports.png import data_uri, shades, shrink, signed

#: How many inputs are shown, and the largest side of an embedded image.
MOST, SIDE = 8, 96
#: Of an input that is no image, the coordinates listed: those that changed most.
FEATURES = 6


@dataclass(frozen=True)
class Exhibit:
    """One attacked input. Images are PNG data URIs; ``values`` lists coordinates otherwise."""

    index: int
    target: str
    certified: str | None
    prediction: str
    radius: float
    distance: float
    peak: float
    images: Mapping[str, str]
    values: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Attacked:
    """Everything stored about one confirmed adversarial example of the smoothed classifier."""

    index: int
    x: np.ndarray
    x_adv: np.ndarray
    outcome: Mapping[str, Any]
    distance: float  # in the run's norm


def attacked_pairs(evidence: Evidence) -> list[Attacked]:
    """The stored adversarial examples that belong to a nearest confirmed attack, by distance."""
    stored = evidence.arrays("adversarial") or {}
    if not {"index", "x", "x_adv"} <= set(stored):
        return []
    nearest = evidence.nearest(smoothed=True)
    found: dict[int, Attacked] = {}
    for index, x, x_adv in zip(stored["index"], stored["x"], stored["x_adv"], strict=True):
        outcome = nearest.get(int(index))
        size = float(np.linalg.norm(x_adv.astype(np.float64) - x.astype(np.float64)))
        # Arrays of several threat models may share the file: only the pair of this size fits.
        known = None if outcome is None else outcome.get("distance_l2")
        if outcome is None or known is None or abs(size - known) > 1e-3 * max(size, 1e-3):
            continue
        found[int(index)] = Attacked(int(index), x, x_adv, outcome, evidence.size(outcome) or 0.0)
    return sorted(found.values(), key=lambda a: (a.distance, a.index))


def gallery(evidence: Evidence, most: int = MOST) -> list[Exhibit]:
    """Up to ``most`` attacked inputs, spread evenly from the nearest attack to the farthest."""
    pairs = attacked_pairs(evidence)
    if len(pairs) > most:
        pairs = [pairs[round(i * (len(pairs) - 1) / (most - 1))] for i in range(most)]
    return [_exhibit(evidence, pair) for pair in pairs]


def _exhibit(evidence: Evidence, pair: Attacked) -> Exhibit:
    record = evidence.by_index[pair.index]
    change = pair.x_adv.astype(np.float64) - pair.x.astype(np.float64)
    images: dict[str, str] = {}
    values: tuple[tuple[int, float, float], ...] = ()
    if _is_image(pair.x):
        images = _images(evidence, pair, change)
    else:
        flat, moved = pair.x.ravel(), pair.x_adv.ravel()
        largest = np.argsort(-np.abs(change.ravel()), kind="stable")[:FEATURES]
        values = tuple((int(i), float(flat[i]), float(moved[i])) for i in sorted(largest))
    return Exhibit(
        index=pair.index,
        target=evidence.class_name(record.target),
        certified=evidence.class_name(record.label) if record.certified else None,
        prediction=evidence.class_name(pair.outcome.get("prediction")),
        radius=record.radius if record.certified else 0.0,
        distance=pair.distance,
        peak=float(np.abs(change).max()),
        images=images,
        values=values,
    )


def _images(evidence: Evidence, pair: Attacked, change: np.ndarray) -> dict[str, str]:
    low, high = evidence.settings.get("bounds") or (0.0, 1.0)
    noisy = noisy_sample(evidence, pair.index, pair.x)
    out = {"input": data_uri(shades(shrink(pair.x, SIDE), low, high))}
    if noisy is not None:
        out["noisy"] = data_uri(shades(shrink(noisy, SIDE), low, high))
    out["adversarial"] = data_uri(shades(shrink(pair.x_adv, SIDE), low, high))
    out["change"] = data_uri(signed(shrink(change, SIDE))[0])
    return out


def noisy_sample(evidence: Evidence, index: int, x: np.ndarray) -> np.ndarray | None:
    """The first noisy copy of input ``index`` that the certificate was computed from.

    None where the settings do not determine the noise (an imported run, a sigma per coordinate).
    """
    name, seed = evidence.settings.get("noise"), evidence.settings.get("seed")
    if evidence.imported or name not in ("lattice", "gaussian") or seed is None:
        return None
    import torch

    from certify.noise import make_noise

    bounds = evidence.settings.get("bounds")
    try:
        noise = make_noise(
            name,
            sigma=evidence.sigma,
            grid=evidence.settings.get("grid"),
            bounds=None if bounds is None else (bounds[0], bounds[1]),
        )
        base = noise.prepare(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)))
        out = torch.empty(1, *x.shape, dtype=torch.float32)
        noise.fill(out, bases=[base], ids=[index], starts=[0], counts=[1], seed=int(seed))
    except CertifyError:
        return None
    return out[0].numpy()


def _is_image(x: np.ndarray) -> bool:
    return x.ndim == 3 and x.shape[0] in (1, 3) and min(x.shape[1:]) > 1
