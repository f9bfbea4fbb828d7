"""Certified pixels: U-Nets on the synthetic shapes, every pixel's class proved under noise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import over_seeds

import certify
from certify.data import load
from certify.dense.procedure import make_pixel_tests
from certify.geometry import make_geometry
from certify.verification import verify
from pdenets.training import train

SIGMA, N0, N, IMAGES, EPOCHS, LR = 0.25, 100, 1000, 16, 100, 2e-3
#: Holm's radius, fixed beforehand: class probability 3/4, as in the paper.
RADIUS = 0.1686
AT = (0.0, 0.1, RADIUS, 0.25, 0.5)
#: Label, noise in training, arguments of the network.
ROWS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("no noise", 0.0, {}),
    ("noise .25", SIGMA, {}),
    ("noise .25, heat layer dt .1 n 20", SIGMA, {"evolution": "heat", "steps": 20}),
)


def run(seeds: int) -> dict[str, Any]:
    found = {label: [one(noise, arguments, s) for s in range(seeds)] for label, noise, arguments in ROWS}
    rows = []
    for label, fits in found.items():
        values = {key: over_seeds([f[key] for f in fits]) for key in fits[0] if key != "verified"}
        rows.append({"training": label} | values)
    at = {row["training"]: row[f"correct at {AT[3]:g}"]["mean"] for row in rows}
    verified = all(f["verified"] for fits in found.values() for f in fits)
    holm = all(
        f[f"Holm at {RADIUS:g}"] >= f[f"correct at {RADIUS:g}"] for fits in found.values() for f in fits
    )
    gain = f"{at['noise .25']:.3f} against {at['no noise']:.3f}"
    return {
        "rows": rows, "seeds": seeds, "epochs": EPOCHS, "sigma": SIGMA, "n0": N0, "n": N, "images": IMAGES,
        "bars": {
            f"noise in training proves more pixels at .25: {gain}": at["noise .25"] > at["no noise"],
            "Holm proves at least what Bonferroni proves at its radius": holm,
            "every run passes level 2 of certify verify": verified,
        },
    }  # fmt: skip


def one(noise: float, arguments: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train one network, certify its pixels, and score what was proved against the labels."""
    data, test = load("shapes", split="train", seed=seed), load("shapes", split="test", seed=seed)
    test = test.part(limit=IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        path, place = Path(folder) / "net.pt", Path(folder) / "run"
        settings: dict[str, Any] = {"sigma": noise, "epochs": EPOCHS, "lr": LR, "seed": seed}
        train(data, test, arch="unet", arguments=arguments, out=path, **settings)
        g = certify.SmoothedSegmentation(certify.load(path), SIGMA)
        proved = g.certify(test.x, test.y, n0=N0, n=N, seed=seed, store=place)
        score, at = proved.score(), proved.certified_correct(AT)
        # The votes are the same for both corrections; Holm's radius was fixed before they were drawn.
        geometry = make_geometry(g.noise, norm="2", dim=test.x[0].numel())
        holm = make_pixel_tests(geometry, radius=RADIUS, n0=N0, n=N, tv=g.noise.tv(test.x[0].numel()))
        right = [
            float(np.mean(holm.judge(image.maps.votes)[0] & (image.maps.selected == image.maps.target)))
            for image in proved
        ]
        verified = verify(place, level=2).ok
    return {
        "mIoU, base model": score.plain_mean_iou,
        "mIoU, certified": score.mean_iou,
        "abstaining": score.abstained,
        **{f"correct at {e.at:g}": e.value for e in at},
        f"Holm at {RADIUS:g}": float(np.mean(right)),
        "verified": verified,
    }
