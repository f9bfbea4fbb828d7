"""Train a network and write a self-describing checkpoint.

One loop for every architecture and regulariser. Everything random is drawn from
(seed, epoch), so a training that was interrupted and resumed ends with the weights of
one that was not. The weights written are those of the *last* epoch; the best epoch on
the held-out part is reported beside it and never selected.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.contract import IGNORE
from certify.data.dataset import Dataset
from certify.errors import InvalidSetting, TrainingDiverged
from pdenets.defaults import defaults_for
from pdenets.progress import Progress
from pdenets.regularisers import Regulariser, noisy
from pdenets.regularisers import regulariser as build_regulariser
from pdenets.training_state import load_state, save_state, state_path

#: Gradients are scaled down to this l2 norm.
GRADIENT_CLIP = 5.0
#: Seconds of training that a crash may cost at most, beside the epoch it happened in.
SAVE_EVERY = 10.0
#: So many non-finite steps in a row end the training.
PATIENCE = 20


@dataclass(frozen=True)
class Metrics:
    """Measured after one epoch on the held-out inputs, with and without noise (one draw each)."""

    epoch: int
    loss: float
    accuracy: float
    noisy_accuracy: float


@dataclass(frozen=True)
class TrainingResult:
    """What training left behind; ``final`` describes the weights in ``path``, ``best`` does not."""

    path: str
    architecture: str
    parameters: int
    final: Metrics
    best: Metrics
    history: tuple[Metrics, ...]
    skipped_steps: int
    resumed_from: int
    seconds: float


def train(
    train_data: Dataset,
    val_data: Dataset | None = None,
    *,
    arch: str,
    out: str | Path,
    arguments: Mapping[str, Any] | None = None,
    sigma: float = 0.25,
    regulariser: str | None = None,
    options: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train ``arch`` on ``train_data`` and write the checkpoint ``out`` (.pt or .safetensors).

    ``arch`` is a registered name or "module:factory", ``arguments`` what its factory
    takes beside the shapes. ``sigma`` is the standard deviation s of the noise the
    network will be certified under. ``regulariser`` (see ``pdenets.regularisers``)
    defaults to "diffusion" for time-dependent networks, else to "gaussian"; what is
    left out comes from ``pdenets.defaults``. Without ``val_data`` a twentieth of the
    training set is held out. Nothing is written at ``out`` until training is done; an
    unfinished training is resumed from its state file.

    Raises InvalidSetting for settings no training can have, TrainingDiverged where
    losses stay non-finite, RunConflict where the state file belongs to other settings.
    """
    from certify import checkpoints, registry

    started = time.monotonic()
    out = Path(out)
    row = defaults_for(train_data.name)
    epochs, lr, batch_size = epochs or row.epochs, lr or row.lr, batch_size or row.batch_size
    _check(train_data, epochs=epochs, lr=lr, batch_size=batch_size, optimizer=optimizer)
    if val_data is None:
        train_data, val_data = hold_out(train_data, seed=seed)
    arguments = dict(arguments or {})
    with torch.random.fork_rng(devices=[]):
        seed_everything(seed)
        model = registry.architecture(arch)(
            num_classes=train_data.num_classes, input_shape=train_data.input_shape, **arguments
        ).to(device)
        name = regulariser or ("diffusion" if hasattr(model, "horizon") else "gaussian" if sigma else "none")
        options = row.regulariser_options(name) | dict(options or {})
        settings = {
            "architecture": arch, "arguments": arguments, "regulariser": name, "options": options,
            "sigma": sigma, "diffusion_sigma": sigma / math.sqrt(2), "epochs": epochs, "lr": lr,
            "batch_size": batch_size, "optimizer": optimizer, "weight_decay": weight_decay, "seed": seed,
            "data": train_data.digest(),
        }  # fmt: skip
        loop = _Loop(
            model,
            _optimizer(model, optimizer, weight_decay),
            build_regulariser(name, sigma=sigma, **options),
            train_data,
            settings=settings,
            progress=progress,
        )
        unfinished = state_path(out)
        history = loop.resume(load_state(unfinished, settings=settings))
        resumed_from = len(history)
        saved = time.monotonic()
        for epoch in range(resumed_from + 1, epochs + 1):
            loop.run_epoch(epoch)
            metrics = evaluate(model, val_data, sigma=sigma, batch_size=1024, seed=seed)
            history.append(replace(metrics, epoch=epoch))
            if epoch < epochs and time.monotonic() - saved >= SAVE_EVERY:
                rows = [asdict(m) for m in history]
                save_state(unfinished, settings=settings, history=rows, tensors=loop.tensors())
                saved = time.monotonic()
    result = TrainingResult(
        path=str(out), architecture=arch, parameters=sum(p.numel() for p in model.parameters()),
        final=history[-1], best=max(history, key=lambda m: (m.noisy_accuracy, m.accuracy)),
        history=tuple(history), skipped_steps=loop.skipped, resumed_from=resumed_from,
        seconds=time.monotonic() - started,
    )  # fmt: skip
    record = settings | {
        "final": asdict(result.final), "best": asdict(result.best), "parameters": result.parameters,
        "skipped_steps": result.skipped_steps, "examples": len(train_data), "held_out": len(val_data),
        "seconds": round(result.seconds, 1),
    }  # fmt: skip
    header = checkpoints.Header(
        architecture=arch, arguments=arguments, num_classes=train_data.num_classes,
        input_shape=train_data.input_shape, low=train_data.low, high=train_data.high, grid=train_data.grid,
        dataset={"name": train_data.name}, training=record, task=train_data.task,
    )  # fmt: skip
    checkpoints.save(out, model.cpu().eval(), header)
    unfinished.unlink(missing_ok=True)
    return result


def seed_everything(seed: int) -> None:
    """Seed torch's own stream, which initialises weights and draws dropout masks."""
    torch.manual_seed(seed)


def hold_out(data: Dataset, *, seed: int, share: float = 0.05) -> tuple[Dataset, Dataset]:
    """Split off a random ``share`` of the data (at least one input) to measure on."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    count = max(1, round(share * len(data)))
    parts = order[count:].sort().values, order[:count].sort().values
    kept, held = (replace(data, x=data.x[i], y=data.y[i], ids=data.ids[i]) for i in parts)
    return kept, held


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Dataset, *, sigma: float, batch_size: int = 1024, seed: int = 0
) -> Metrics:
    """Loss and accuracy of the base network on clean and on noisy inputs (pixels, for segmentation)."""
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    model.eval()
    loss = right = noisy_right = count = 0.0
    for x, y in zip(data.x.split(batch_size), data.y.split(batch_size), strict=True):
        x, y = x.to(device), y.to(device)
        logits = model(x)
        known = y != IGNORE
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(1) == y)[known].sum())
        noisy_right += int((model(noisy(x, sigma, generator)).argmax(1) == y)[known].sum())
        count += int(known.sum())
    return Metrics(0, loss / count, right / count, noisy_right / count)


class _Loop:
    """The optimiser steps of one training."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        regulariser: Regulariser,
        data: Dataset,
        *,
        settings: Mapping[str, Any],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.model, self.optimizer, self.regulariser, self.data = model, optimizer, regulariser, data
        self.lr, self.epochs, self.seed = settings["lr"], settings["epochs"], settings["seed"]
        self.batch_size, self.progress = settings["batch_size"], progress
        self.device = next(model.parameters()).device
        self.steps = math.ceil(len(data) / self.batch_size)
        self.skipped = self.failures = 0

    def resume(self, state: tuple[list[dict[str, Any]], dict[str, Any]] | None) -> list[Metrics]:
        """Restore weights and optimiser; the metrics of the epochs already done."""
        if state is None:
            return []
        history, tensors = state
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.skipped = tensors["skipped"]
        return [Metrics(**row) for row in history]

    def tensors(self) -> dict[str, Any]:
        """What ``resume`` needs beside the history."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | {"skipped": self.skipped}

    def run_epoch(self, epoch: int) -> None:
        self.model.train()
        seed_everything(_epoch_seed(self.seed, epoch))
        generator = torch.Generator(device=self.device).manual_seed(_epoch_seed(self.seed, epoch))
        sums: dict[str, float] = {}
        for step, (x, y) in enumerate(self._batches(epoch), start=1):
            self._set_rate((epoch - 1) * self.steps + step - 1)
            losses = self.regulariser.loss(self.model, x, y, generator=generator)
            self._step(torch.stack(list(losses.values())).sum())
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if self.progress is not None:
                means = {name: total / step for name, total in sums.items()}
                self.progress(Progress(epoch, self.epochs, step, self.steps, means, self.skipped))

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        shuffle = torch.Generator().manual_seed(_epoch_seed(self.seed, epoch))
        for rows in torch.randperm(len(self.data), generator=shuffle).split(self.batch_size):
            yield self.data.x[rows].to(self.device), self.data.y[rows].to(self.device)

    def _set_rate(self, step: int) -> None:
        """Cosine schedule from ``lr`` at the first step to 0 after the last."""
        rate = self.lr * (1 + math.cos(math.pi * step / (self.epochs * self.steps))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _step(self, loss: Tensor) -> None:
        """One update, or none where the loss or its gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
        if bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            self.optimizer.step()
            self.failures = 0
            return
        self.skipped += 1
        self.failures += 1
        if self.failures >= PATIENCE:
            raise TrainingDiverged(
                f"{self.failures} training steps in a row were not finite",
                why="the loss or its gradient became infinite or NaN; no checkpoint was written",
                remedy=f"use a smaller --lr (it was {self.lr}), or check the inputs",
            )


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63


def _optimizer(model: nn.Module, name: str, weight_decay: float) -> torch.optim.Optimizer:
    # The rate is set before every step, so the value given here is never used.
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)


def _check(data: Dataset, *, epochs: int, lr: float, batch_size: int, optimizer: str) -> None:
    if epochs < 1 or batch_size < 1 or not (math.isfinite(lr) and lr > 0) or len(data) < 2:
        raise InvalidSetting(
            f"epochs = {epochs}, batch size = {batch_size}, lr = {lr} on {len(data)} inputs is no training",
            why="epochs and batch size must be at least 1, lr positive, and there must be two inputs",
            remedy="leave these settings out to use the defaults of the data set",
        )
    if optimizer not in ("adam", "sgd"):
        raise InvalidSetting(
            f"optimizer {optimizer!r} is unknown",
            why="training uses adam or sgd (momentum .9)",
            remedy="choose one of the two",
        )
