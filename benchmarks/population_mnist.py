"""From nothing to a statement about a population: MNIST, by the commands that a user would give.

    python benchmarks/population_mnist.py --folder runs/population

Trains a convolutional network under Gaussian noise (``certify train``), then states with
``certify population`` what is proved of the 10,000 test images: at radius .5 from 25 copies each, and at
radius .25 for the classifier that looks once, from one copy each. Both runs are verified. Wall times are
those of the whole commands, start and data included. Writes results/population_mnist.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import RESULTS, machine, write

RUNS = {
    "25 copies": ["--radius", "0.5", "--samples", "25"],
    "one copy": ["--radius", "0.25", "--samples", "1", "--one-pass"],
}
SHOWN = ("radius", "samples_per_input", "inputs", "passes", "lower", "upper", "one_pass", "confidence")
BARS = {
    "at radius .5 at least .90 proved": lambda r: r["25 copies"]["lower"] >= 0.90,
    "in at most 250,000 passes": lambda r: r["25 copies"]["passes"] <= 250_000,
    "and at most 5 minutes": lambda r: r["25 copies"]["seconds"] <= 300,
    "at radius .25 at least .85 proved for one copy": lambda r: r["one copy"]["one_pass"] >= 0.85,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="checkpoint and runs, kept between calls")
    parser.add_argument("--seed", type=int, default=0, help="of training and noise")
    options = parser.parse_args()
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, seed = folder / "model.pt", ["--seed", str(options.seed)]
    training = ["--arch", "cnn", "--data", "mnist", "--sigma", "0.25", "--out", str(model)]
    trained = {} if model.exists() else {"train_seconds": certify("train", *training, *seed)[1]}
    found: dict[str, Any] = {}
    for name, asked in RUNS.items():
        run = folder / name.replace(" ", "-")
        said, seconds = certify("population", "--model", str(model), *asked, "--out", str(run), *seed)
        checked, _ = certify("verify", str(run), "--level", "3")
        found[name] = {k: said[k] for k in SHOWN}
        found[name] |= {
            "seconds": seconds,
            "fresh_passes": said["fresh_passes"],
            "verify": checked["outcome"],
        }
    bars = {name: bool(holds(found)) for name, holds in BARS.items()}
    write(RESULTS / "population_mnist.json",
          {"seed": options.seed, **trained, "runs": found, "bars": bars, "machine": machine()})  # fmt: skip
    print(json.dumps(found, indent=1), json.dumps(bars, indent=1))


def certify(verb: str, *words: str) -> tuple[dict[str, Any], float]:
    """What ``certify VERB ... --json`` says, and its wall time in seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "certify_cli", verb, *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout), time.perf_counter() - began


if __name__ == "__main__":
    main()
