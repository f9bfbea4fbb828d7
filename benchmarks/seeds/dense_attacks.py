"""A network with an inverse evolution layer from training to report, its pixels certified and attacked.

Every step is the command itself: train, radius --challenge, attack, verify, report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import certify
from certify.store import read_run

SIGMA, N0, N, CERTIFIED, ATTACKED, EPOCHS = 0.25, 100, 1000, 16, 8, 100
LAYER = {"evolution": "heat", "steps": 20}
SIZES = (0.1, 0.25, 0.5)


def run(seeds: int) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path, place = Path(folder) / "net.pt", Path(folder) / "run"
        network = ["--arch", "unet", "--arch-args", json.dumps(LAYER), "--data", "shapes"]
        command("train", *network, "--sigma", SIGMA, "--epochs", EPOCHS, "--out", path)
        proof = ["-m", path, "--limit", CERTIFIED, "--n0", N0, "--n", N, "--out", place]
        command("radius", *proof)
        contradictions = 0
        for size in SIZES:
            for base in (True, False):
                which = ["--base"] if base else []
                found = command("attack", place, "--eps", size, "--limit", ATTACKED, *which)
                contradictions += len(found["contradictions"])
                rows.append(row(found, base, certified_at(place, size)))
        # The challenge attacks every certified image; it exits with 1 on a contradiction.
        command("radius", *proof, "--challenge")
        challenged = [r for r in read_run(place).attacks if r["preset"] == "challenge"]
        verified = command("verify", place)["ok"]
        command("report", place, as_json=False)
        reported = (place / "report.html").is_file()
    pixels = sum(r["pixels"] for r in challenged)
    return {
        "rows": rows, "epochs": EPOCHS, "sigma": SIGMA, "n0": N0, "n": N, "images": ATTACKED,
        "challenged": {"images": len(challenged), "pixels": pixels},
        "bars": {
            f"{contradictions} contradictions in the attacks inside these balls": contradictions == 0,
            f"{len(challenged)} images challenged inside their own balls, {pixels} certified pixels, no "
            "contradiction": bool(challenged) and not any(r["reached"] for r in challenged),
            "the run passes certify verify and has its report": verified and reported,
        },
    }  # fmt: skip


def row(found: dict[str, Any], base: bool, certified: float) -> dict[str, Any]:
    """One attack: what was right before, under one perturbation, and under none of those tried."""
    return {
        "attack on": "base network" if base else "smoothed network", "l2 size": found["eps"],
        "right before": found["clean_accuracy"], "one perturbation": found["accuracy"]["value"],
        "no perturbation tried": found["survived"]["value"], "certified": "" if base else certified,
        "mIoU before": found["clean_mean_iou"], "mIoU, one perturbation": found["mean_iou"],
    }  # fmt: skip


def certified_at(place: Path, size: float) -> float:
    """Certified and correct at this radius on the images that are attacked."""
    images = [image.maps for image in certify.SegmentationRun.open(place)[:ATTACKED]]
    right = sum(int((m.correct & (m.radius >= size)).sum()) for m in images)
    return right / sum(int(m.known.sum()) for m in images)


def command(verb: str, *options: object, as_json: bool = True) -> Any:
    """Run ``certify``; its JSON object. Raises CalledProcessError where it does not exit with 0."""
    words = [sys.executable, "-m", "certify_cli", verb, *map(str, options), *(["--json"] if as_json else [])]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout) if as_json else None
