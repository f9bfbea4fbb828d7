"""Serving a classifier that only answers: a network of one's own is taught its answers and stands in for it.

H. Salman, M. Sun, G. Yang, A. Kapoor and J. Z. Kolter, "Denoised Smoothing" (NeurIPS 2020), section 3.2:
stability towards surrogates where the classifier gives no gradients, or is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.answers import check_output
from certify.data.dataset import Dataset
from certify.errors import CertifyError
from pdenets.progress import Progress
from pdenets.training import hold_out, train


@dataclass(frozen=True)
class Surrogate:
    """A differentiable network that was taught a classifier's answers.

    ``agreement``: the share of held-out inputs on which both answer alike. ``queries``: labels asked for.
    """

    network: nn.Module
    architecture: str
    agreement: float
    queries: int


def surrogate_for(
    classifier: Callable[[Tensor], Any],
    data: Dataset,
    *,
    out: str | Path,
    arch: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Surrogate:
    """Ask ``classifier`` for its label of every input of ``data`` once, and train ``arch`` on the answers.

    ``arch``: a registered network, by default "cnn" for images and "mlp" for vectors. ``out`` is the
    checkpoint it is kept in; one that is there already, of the same answers and network, is used again.
    Raises as ``pdenets.training.train``, and InvalidModel for answers that are no class scores.
    """
    from certify import checkpoints

    out, arch = Path(out), arch or ("cnn" if len(data.input_shape) == 3 else "mlp")
    kept, held = hold_out(replace(data, y=answers(classifier, data)), seed=seed)
    if not _is_there(out, arch, kept, seed):
        train(
            kept, held, arch=arch, out=out, sigma=0.0, regulariser="none", epochs=epochs, seed=seed,
            device=device, progress=progress,
        )  # fmt: skip
    header, _ = checkpoints.read(out)
    network = checkpoints.load(out, device=device)
    return Surrogate(network, arch, float(header.training["final"]["accuracy"]), len(data))


@torch.no_grad()
def answers(classifier: Callable[[Tensor], Any], data: Dataset, *, batch_size: int = 256) -> Tensor:
    """The class that ``classifier`` gives every input of ``data``; nothing else is asked of it."""
    tensors = [*classifier.parameters(), *classifier.buffers()] if isinstance(classifier, nn.Module) else []
    place = tensors[0].device if tensors else torch.device("cpu")
    spatial = data.input_shape[1:] if data.task == "segmentation" else None
    found = []
    for part in data.x.split(batch_size):
        scores = classifier(part.to(place))
        check_output(scores, batch=len(part), num_classes=data.num_classes, spatial=spatial)
        found.append(scores.argmax(1).cpu())
    return torch.cat(found)


def _is_there(out: Path, arch: str, kept: Dataset, seed: int) -> bool:
    """Whether an interrupted call has already taught this network these answers."""
    from certify import checkpoints

    if not out.exists():
        return False
    try:
        header, _ = checkpoints.read(out)
    except CertifyError:
        return False
    record = header.training
    return header.architecture == arch and record.get("data") == kept.digest() and record.get("seed") == seed
