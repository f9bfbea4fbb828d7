"""The Global layer: where its scheme is stable."""

from __future__ import annotations

from typing import Any

import torch

from pdenets.diffusion_advection import dufort_frankel


def stability(seeds: int) -> dict[str, Any]:
    """Growth of a random field in 500 steps: advection around the Courant limit, diffusion at any step."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(1, 1, 32, 32, generator=generator, dtype=torch.float64)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    rows = []
    for courant in (0.5, 0.9, 1.0, 1.1, 1.2):
        u = one * courant / 2
        out = dufort_frankel(h, u, u, zero, zero, source=0 * h, steps=500, dt=1.0, dx=1.0)
        rows.append({"equation": "advection", "setting": f"(|u| + |v|) dt / dx = {courant}",
                     "largest value / start": float(out.abs().max() / h.abs().max())})  # fmt: skip
    for dt in (0.2, 1.0, 10.0):
        out = dufort_frankel(h, zero, zero, one, one, source=0 * h, steps=500, dt=dt, dx=1.0)
        rows.append({"equation": "diffusion", "setting": f"dt = {dt}",
                     "largest value / start": float(out.abs().max() / h.abs().max())})  # fmt: skip
    growth = [row["largest value / start"] for row in rows]
    return {
        "rows": rows,
        "bars": {
            "advection bounded at and below 1": max(growth[:2]) < 50,
            "advection diverges above 1": min(growth[3:5]) > 1e6,
            "diffusion bounded at every step": max(growth[5:]) < 50,
        },
    }
