"""The document "maps": what a network's equation looks like on one input, small enough to store.

``{"fields": [{"name": ..., "values": ..., "note": ...}]}``; ``values`` is (height, width) for a scalar
field or (2, height, width) for a velocity: its x component, then its y component.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from certify.calls import checked

#: Stored numbers keep this many significant digits: a map is looked at, not computed with.
DIGITS = 4


@checked
def maps_document(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """From the coefficient maps of each layer on a batch whose first input is shown.

    ``layers`` is what ``pdenets.global_nets.coefficient_maps`` returns: per layer the velocities "u",
    "v" and the diffusions "Dx", "Dy", each (batch, channels, height, width) or one number where
    constant. Of each layer the channel is kept in which the velocity varies most.
    """
    fields: list[dict[str, Any]] = []
    for number, layer in enumerate(layers, start=1):
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in layer.items()}
        shapes = [a.shape[1:] for a in arrays.values() if a.ndim == 4]
        if not shapes:
            continue
        full = {name: np.broadcast_to(a[0] if a.ndim == 4 else a, shapes[0]) for name, a in arrays.items()}
        channel = _busiest(full)
        note = f"layer {number}, channel {channel}"
        if "u" in full and "v" in full:
            velocity = np.stack([full["u"][channel], full["v"][channel]])
            if np.ptp(velocity) > 0:
                fields.append({"name": f"velocity, layer {number}", "values": _short(velocity), "note": note})
        for name in ("Dx", "Dy"):
            if name in full and np.ptp(full[name][channel]) > 0:
                values = _short(full[name][channel])
                fields.append({"name": f"diffusion {name}, layer {number}", "values": values, "note": note})
    return {"fields": fields}


def _busiest(maps: Mapping[str, np.ndarray]) -> int:
    moving = [maps[name] for name in ("u", "v") if name in maps] or list(maps.values())
    return int(np.argmax(sum(a.var(axis=(1, 2)) for a in moving)))


def _short(values: np.ndarray) -> list[Any]:
    """Nested lists of rounded numbers."""
    rounded = np.vectorize(lambda x: float(f"{x:.{DIGITS}g}"), otypes=[float])(values)
    return rounded.tolist()
