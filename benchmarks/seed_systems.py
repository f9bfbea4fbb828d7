"""The seed systems, trained and measured: one section per system, one table per section.

    python benchmarks/seed_systems.py [--only segmentation,digits,...] [--seeds 2] [--data-root DIR]

Sections: segmentation (inverse evolution layers), dense (certified pixels), dense-attacks (attacks on
them), mnist-trio, its variants and stability (Global layer), digits (quasi-linear networks), moons
(Neural ODE), burgers (physics-informed networks), image (sine networks), regularisers (what each does
to accuracy, certificates and attacks on MNIST), certified (every system through train, certify,
attack). Each section replaces its part of results/seed_systems.json and leaves the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from common import RESULTS, machine, table, write
from seeds import (
    certified,
    continuous,
    dense,
    dense_attacks,
    global_layer,
    mnist_trio,
    quasi_linear,
    regularisers,
    segmentation,
)

from certify.errors import CertifyError

SECTIONS = {
    "segmentation": segmentation.run,
    "dense": dense.run,
    "dense-attacks": dense_attacks.run,
    "mnist-trio": mnist_trio.run,
    "mnist-trio-variants": mnist_trio.variants,
    "stability": global_layer.stability,
    "digits": quasi_linear.run,
    "moons": continuous.moons,
    "burgers": continuous.burgers,
    "image": continuous.image,
    "regularisers": regularisers.run,
    "certified": certified.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data-root", default=None, help="folder that holds mnist/")
    parser.add_argument("--out", type=Path, default=RESULTS / "seed_systems.json")
    settings = parser.parse_args()
    if settings.data_root:
        os.environ["CERTIFY_DATA"] = settings.data_root
    for name in settings.only.split(","):
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; the sections are {', '.join(SECTIONS)}")
        print(f"running {name}", file=sys.stderr)
        started = time.time()
        section = SECTIONS[name](settings.seeds)
        section = {"seconds": round(time.time() - started, 1), "machine": machine()} | section
        report = json.loads(settings.out.read_text()) if settings.out.exists() else {}
        write(settings.out, report | {name: section})
        print(f"\n## {name}\n\n{table(section['rows'])}\n")
        for label, bar in section.get("bars", {}).items():
            print(f"{'met' if bar else 'NOT MET'}: {label}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except CertifyError as error:
        raise SystemExit(str(error)) from error
