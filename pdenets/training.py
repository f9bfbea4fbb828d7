"""Train a network and write a self-describing checkpoint.

One loop for every architecture and regulariser. Everything random is drawn from
(seed, epoch), so a training that was interrupted and resumed ends with the weights of
one that was not. The weights written are those of the *last* epoch; the best epoch on
the held-out part is reported beside it and never selected.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from certify.calls import checked
from certify.checkpoints.header import Header, encode
from certify.contract import IGNORE
from certify.data.dataset import Dataset
from certify.errors import ArchitectureMismatch, CertifyError, InvalidSetting, RunNotWritable
from certify.limits import within
from pdenets.augmentation import augmentation
from pdenets.defaults import defaults_for
from pdenets.distributed import local_device, process_group
from pdenets.loop import SCHEDULES, Loop
from pdenets.progress import Progress
from pdenets.regularisers import noisy
from pdenets.regularisers import regulariser as build_regulariser
from pdenets.training_state import load_state, save_state, state_path

#: Seconds of training that a crash may cost at most, beside the epoch it happened in.
SAVE_EVERY = 10.0


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


@checked
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
    nesterov: bool = False,
    schedule: str = "cosine",
    augment: str | None = None,
    average: float = 0.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train ``arch`` on ``train_data`` and write the checkpoint ``out`` (.pt or .safetensors).

    ``arch`` is a registered name or "module:factory", ``arguments`` what its factory
    takes beside the shapes. ``sigma`` is the standard deviation s of the noise the
    network will be certified under. ``regulariser`` (see ``pdenets.regularisers``)
    defaults to "diffusion" for time-dependent networks, else to "gaussian" ("none" at
    sigma 0). ``optimizer`` is "adam" or "sgd" with momentum .9, in Nesterov's form with
    ``nesterov``; ``schedule`` takes ``lr`` down to 0 as a "cosine", by fifths after 30, 60 and
    80 % of the epochs ("steps"), or keeps it "constant". ``augment`` names what is done to images
    in every epoch (see ``pdenets.augmentation``). ``average`` (0: none; such as .999) keeps an
    exponential average of the weights with this factor a step, and what is measured and written is
    the average: Izmailov et al., "Averaging weights leads to wider optima" (UAI 2018).
    What is left out comes from ``pdenets.defaults``. Without ``val_data`` a twentieth of the
    training set is held out. Nothing is written at ``out`` until training is done; an
    unfinished training is resumed from its state file. Under torchrun the processes
    share every batch (``pdenets.distributed``) and the first one writes.

    Raises, before the first step, InvalidSetting for settings no training can have,
    ArchitectureMismatch for arguments the network does not take, RunNotWritable for a
    place that cannot be written, RunConflict where the state file belongs to other
    settings; and TrainingDiverged where losses stay non-finite.
    """
    from certify import checkpoints

    started = time.monotonic()
    out, row = Path(out), defaults_for(train_data.name)
    epochs = row.epochs if epochs is None else epochs
    lr = row.lr if lr is None else lr
    batch_size = row.batch_size if batch_size is None else batch_size
    augment = row.augment if augment is None else augment
    check_training(train_data, epochs=epochs, lr=lr, batch_size=batch_size)
    within("weight_decay", weight_decay, 0, 1e6, "a factor")
    within("average", average, 0, 0.999999, "the share that a step keeps of the average before it")
    check_steps(optimizer=optimizer, nesterov=nesterov, schedule=schedule)
    check_out(out)
    if val_data is None:
        train_data, val_data = hold_out(train_data, seed=seed)
    arguments = dict(arguments or {})
    device = local_device(device)
    with torch.random.fork_rng(devices=[]), process_group(device) as group:
        seed_everything(seed)
        model = _network(arch, arguments, train_data).to(device)
        name = regulariser or _natural_regulariser(model, sigma)
        options = row.regulariser_options(name) | dict(options or {})
        settings = {
            "architecture": arch, "arguments": arguments, "regulariser": name, "options": options,
            "sigma": sigma, "diffusion_sigma": sigma / math.sqrt(2), "epochs": epochs, "lr": lr,
            "batch_size": batch_size, "optimizer": optimizer, "weight_decay": weight_decay,
            "nesterov": nesterov, "schedule": schedule, "augment": augment, "seed": seed,
            "processes": group.size, "data": train_data.digest(),
        } | ({"average": average} if average else {})  # fmt: skip
        # What could not be written at the end is refused before the first step.
        encode(_header(train_data, arch, arguments, settings))
        loop = Loop(
            model,
            _optimizer(model, optimizer, weight_decay, nesterov),
            build_regulariser(name, sigma=sigma, **options),
            train_data,
            settings=settings,
            group=group,
            augmentation=augmentation(augment, train_data, seed=seed),
            progress=progress,
        )
        history, unfinished = [], state_path(out)
        state = load_state(unfinished, settings=settings)
        if state is not None:
            history = [Metrics(**metrics) for metrics in state[0]]
            loop.restore(state[1])
        resumed_from, saved = len(history), time.monotonic()
        # The first process may replace the file as soon as all have read it, not before.
        group.barrier()
        for epoch in range(resumed_from + 1, epochs + 1):
            loop.run_epoch(epoch)
            metrics = evaluate(loop.trained(), val_data, sigma=sigma, batch_size=1024, seed=seed)
            history.append(replace(metrics, epoch=epoch))
            if group.leads and epoch < epochs and time.monotonic() - saved >= SAVE_EVERY:
                rows = [asdict(m) for m in history]
                save_state(unfinished, settings=settings, history=rows, tensors=loop.tensors())
                saved = time.monotonic()
        result = TrainingResult(
            path=str(out), architecture=arch, parameters=sum(p.numel() for p in model.parameters()),
            final=history[-1], best=max(history, key=lambda m: (m.noisy_accuracy, m.accuracy)),
            history=tuple(history), skipped_steps=loop.skipped, resumed_from=resumed_from,
            seconds=time.monotonic() - started,
        )  # fmt: skip
        if group.leads:
            record = settings | _summary(result) | {"examples": len(train_data), "held_out": len(val_data)}
            checkpoints.save(out, loop.trained().cpu().eval(), _header(train_data, arch, arguments, record))
            unfinished.unlink(missing_ok=True)
        # Nobody returns before the checkpoint is there.
        group.barrier()
    return result


@checked
def seed_everything(seed: int) -> None:
    """Seed torch's own stream, which initialises weights and draws dropout masks."""
    torch.manual_seed(seed)


@checked
def hold_out(data: Dataset, *, seed: int, share: float = 0.05) -> tuple[Dataset, Dataset]:
    """Split off a random ``share`` of the data (at least one input) to measure on."""
    within("seed", seed, -(2**63), 2**63 - 1, "a seed")
    within("share", share, 0, 1, "the share that is held out")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(int(seed)))
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
    count = max(count, 1.0)
    return Metrics(0, loss / count, right / count, noisy_right / count)


def _network(arch: str, arguments: dict[str, Any], data: Dataset) -> nn.Module:
    """A fresh network from the torch stream as it stands."""
    from certify import registry

    factory = registry.architecture(arch)
    try:
        shapes = {"num_classes": data.num_classes, "input_shape": data.input_shape}
        return factory(**registry.accepted(factory, shapes) | arguments)
    except CertifyError:
        raise
    except Exception as cause:
        raise ArchitectureMismatch(
            f"the architecture {arch!r} could not be built",
            why=f"{type(cause).__name__}: {cause}",
            remedy="check --arch-args; the factory's docstring names its arguments",
        ) from cause


def _natural_regulariser(model: nn.Module, sigma: float) -> str:
    if sigma == 0 or hasattr(model, "noise_stages"):  # the latter draws its own noise in training
        return "none"
    return "diffusion" if hasattr(model, "horizon") else "gaussian"


def _summary(result: TrainingResult) -> dict[str, Any]:
    """What the checkpoint's header keeps of a training."""
    metrics = {"final": asdict(result.final), "best": asdict(result.best)}
    for row in metrics.values():
        # JSON has no infinity; a loss can be one while every weight is finite.
        row["loss"] = row["loss"] if math.isfinite(row["loss"]) else None
    return metrics | {
        "parameters": result.parameters, "skipped_steps": result.skipped_steps,
        "seconds": round(result.seconds, 1),
    }  # fmt: skip


def _header(data: Dataset, arch: str, arguments: dict[str, Any], record: dict[str, Any]) -> Header:
    return Header(
        architecture=arch, arguments=arguments, num_classes=data.num_classes, input_shape=data.input_shape,
        low=data.low, high=data.high, grid=data.grid, dataset={"name": data.name}, training=record,
        task=data.task,
    )  # fmt: skip


def _optimizer(model: nn.Module, name: str, weight_decay: float, nesterov: bool) -> torch.optim.Optimizer:
    # The rate is set before every step, so the value given here is never used.
    if name == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay, nesterov=nesterov
        )
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)


def check_out(out: Path) -> None:
    """Refuse a place that ``checkpoints.save`` would refuse after all the work is done.

    Raises InvalidSetting for another ending, RunNotWritable.
    """
    if out.suffix not in (".pt", ".safetensors"):
        raise InvalidSetting(
            f"{out.name} has no known checkpoint ending",
            why="the ending decides the format",
            remedy="name it .pt or .safetensors",
        )
    place = next((p for p in (out.parent, *out.parent.parents) if p.exists()), Path("/"))
    if not (place.is_dir() and os.access(place, os.W_OK)) or out.is_dir():
        raise RunNotWritable(
            f"{out} could not be written",
            why=f"{place} is no folder that can be written to, or {out.name} is a folder",
            remedy="choose another --out",
        )


def check_training(data: Dataset, *, epochs: int, lr: float, batch_size: int) -> None:
    """Raise InvalidSetting for numbers that no training can have, InvalidInput for data without labels."""
    data.need_labels("a classifier is trained to give them")
    within("epochs", epochs, -math.inf, 10**6, "a number of passes over the data")
    within("batch_size", batch_size, -math.inf, 2**31, "a number of inputs")
    if epochs < 1 or batch_size < 1 or not (math.isfinite(lr) and lr > 0) or len(data) < 2:
        raise InvalidSetting(
            f"epochs = {epochs}, batch size = {batch_size}, lr = {lr} on {len(data)} inputs is no training",
            why="epochs and batch size must be at least 1, lr positive, and there must be two inputs",
            remedy="leave these settings out to use the defaults of the data set",
        )


def check_steps(*, optimizer: str, nesterov: bool, schedule: str) -> None:
    """Raise InvalidSetting for an optimizer or schedule that does not exist."""
    if optimizer not in ("adam", "sgd"):
        raise InvalidSetting(
            f"optimizer {optimizer!r} is unknown",
            why="training uses adam or sgd (momentum .9)",
            remedy="choose one of the two",
        )
    if nesterov and optimizer != "sgd":
        raise InvalidSetting(
            f"optimizer {optimizer!r} has no Nesterov form here",
            why="Nesterov's step is a variant of momentum, which only sgd uses",
            remedy="use optimizer sgd, or leave nesterov out",
        )
    if schedule not in SCHEDULES:
        raise InvalidSetting(
            f"schedule {schedule!r} is unknown",
            why=f"the learning rate follows one of {', '.join(SCHEDULES)}",
            remedy="choose one of these",
        )
