"""Train a denoiser and write a self-describing checkpoint.

In up to two stages: first to restore the input (MSE), then, where there is a classifier to serve, so that its
answers survive (stability) at a tenth of the rate. Everything random is drawn from (seed, epoch), so an
interrupted training ends with the weights of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.calls import checked
from certify.checkpoints.header import encode
from certify.data.dataset import Dataset
from certify.errors import ArchitectureMismatch, InvalidSetting
from pdenets.augmentation import augmentation
from pdenets.defaults import denoising_defaults
from pdenets.denoisers.building import build_denoiser, denoiser_header
from pdenets.denoisers.levels import check_sigmas
from pdenets.denoisers.losses import Restoration, Stability
from pdenets.denoisers.measuring import DenoiserMetrics, frozen, measure
from pdenets.distributed import Group, local_device, process_group
from pdenets.loop import Loop
from pdenets.progress import Progress
from pdenets.training import SAVE_EVERY, check_out, check_steps, check_training, hold_out, seed_everything
from pdenets.training_state import load_state, save_state, state_path

LOSSES = ("mse", "stability", "mse-stability")
#: Of "mse-stability": the share of the epochs that train for stability, and their rate beside the first
#: one's.
STABILITY_SHARE, STABILITY_RATE = 0.4, 0.1


@dataclass(frozen=True)
class DenoiserResult:
    """What training left behind; ``final`` describes the weights in ``path``."""

    path: str
    denoiser: str
    parameters: int
    sigmas: tuple[float, ...]
    final: DenoiserMetrics
    history: tuple[DenoiserMetrics, ...]
    skipped_steps: int
    resumed_from: int
    seconds: float


@dataclass(frozen=True)
class Stage:
    """One loss, for some epochs, from this learning rate down to 0."""

    name: str
    loss: Restoration | Stability
    epochs: int
    lr: float


@checked
def train_denoiser(
    train_data: Dataset,
    val_data: Dataset | None = None,
    *,
    denoiser: str,
    out: str | Path,
    sigmas: Sequence[float] = (0.25,),
    arguments: Mapping[str, Any] | None = None,
    classifier: nn.Module | None = None,
    judge: Callable[[Tensor], Any] | None = None,
    loss: str | None = None,
    start: Mapping[str, Tensor] | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    schedule: str = "cosine",
    augment: str | None = None,
    record: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> DenoiserResult:
    """Train a learned denoiser on ``train_data`` and write the checkpoint ``out`` (.pt or .safetensors).

    ``denoiser``: the registered name of one with weights; ``arguments`` go to its factory beside the
    input shape and ``sigmas``, the noise levels (standard deviations, in the units of the inputs) that
    the one network is trained for. ``classifier``: a differentiable module in eval mode from inputs to
    logits; it is frozen. ``loss``: "mse", "stability" or "mse-stability" (the default where there is a
    classifier: the last ``STABILITY_SHARE`` of the ``epochs`` train for stability, at a tenth of ``lr``).
    ``judge``: whose answers are counted on held-out inputs, by default the classifier's. ``start``:
    weights to begin with. What is left out comes from ``pdenets.defaults``. ``record`` is kept in the
    header beside the settings. Without ``val_data`` a twentieth of the training set is held out. An
    unfinished training is resumed from its state file.

    Raises, before the first step, InvalidSetting, ArchitectureMismatch, RunNotWritable, RunConflict as
    ``pdenets.training.train``; and TrainingDiverged where losses stay non-finite.
    """
    from certify import checkpoints

    started, out, row = time.monotonic(), Path(out), denoising_defaults(train_data.name)
    epochs, lr = row.epochs if epochs is None else epochs, row.lr if lr is None else lr
    batch_size = row.batch_size if batch_size is None else batch_size
    augment = row.augment if augment is None else augment
    sigmas = check_sigmas(sigmas)
    loss = loss or ("mse" if classifier is None else "mse-stability")
    check_training(train_data, epochs=epochs, lr=lr, batch_size=batch_size)
    check_steps(optimizer="adam", nesterov=False, schedule=schedule)
    check_out(out)
    if val_data is None:
        train_data, val_data = hold_out(train_data, seed=seed)
    device = local_device(device)
    with torch.random.fork_rng(devices=[]), process_group(device) as group, frozen(classifier):
        seed_everything(seed)
        arguments = dict(arguments or {}) | {"sigmas": list(sigmas)}
        model = _network(denoiser, arguments, train_data, start).to(device)
        stages = _stages(loss, classifier, sigmas, epochs, lr, train_data.x[:1].to(device))
        settings = {
            "denoiser": denoiser, "arguments": arguments, "sigmas": list(sigmas), "loss": loss,
            "stages": [[s.name, s.epochs, s.lr] for s in stages], "batch_size": batch_size,
            "schedule": schedule, "augment": augment, "seed": seed, "processes": group.size,
            "start": None if start is None else checkpoints.tensor_digest(start),
            "data": train_data.digest(), **(record or {}),
        }  # fmt: skip
        # What could not be written at the end is refused before the first step.
        encode(denoiser_header(denoiser, arguments, train_data, settings))
        work = _Work(model, train_data, val_data, judge or classifier, sigmas, settings, group, progress)
        history, skipped, resumed_from = work.run(stages, state_path(out))
        result = DenoiserResult(
            path=str(out), denoiser=denoiser, parameters=sum(p.numel() for p in model.parameters()),
            sigmas=sigmas, final=history[-1], history=tuple(history), skipped_steps=skipped,
            resumed_from=resumed_from, seconds=time.monotonic() - started,
        )  # fmt: skip
        if group.leads:
            kept = settings | {
                "final": asdict(result.final), "history": [asdict(m) for m in history],
                "parameters": result.parameters, "skipped_steps": skipped,
                "seconds": round(result.seconds, 1), "examples": len(train_data), "held_out": len(val_data),
            }  # fmt: skip
            checkpoints.save(out, model.cpu().eval(), denoiser_header(denoiser, arguments, train_data, kept))
            state_path(out).unlink(missing_ok=True)
        # Nobody returns before the checkpoint is there.
        group.barrier()
    return result


@dataclass(frozen=True)
class _Work:
    """One training: the network and all that its stages share."""

    model: nn.Module
    train_data: Dataset
    val_data: Dataset
    judge: Callable[[Tensor], Any] | None
    sigmas: tuple[float, ...]
    settings: dict[str, Any]
    group: Group
    progress: Callable[[Progress], None] | None

    def run(self, stages: Sequence[Stage], unfinished: Path) -> tuple[list[DenoiserMetrics], int, int]:
        """All stages, from where the state file says; history, skipped steps, epochs already done."""
        state = load_state(unfinished, settings=self.settings)
        history = [] if state is None else [DenoiserMetrics(**row) for row in state[0]]
        tensors: dict[str, Any] = {} if state is None else state[1]
        begun, resumed_from, saved, skipped = tensors.get("stage", 0), len(history), time.monotonic(), 0
        # The first process may replace the file as soon as all have read it, not before.
        self.group.barrier()
        for index, stage in enumerate(stages):
            if index < begun:
                continue
            loop = self._loop(stage, index, skipped)
            if tensors and index == begun:
                loop.restore(tensors)
            first = sum(s.epochs for s in stages[:index])
            for epoch in range(len(history) + 1, first + stage.epochs + 1):
                loop.run_epoch(epoch - first)
                found = measure(self.model, self.val_data, self.sigmas, self.judge, seed=loop.seed)
                history.append(replace(found, epoch=epoch, stage=stage.name))
                ended = epoch == first + stage.epochs
                if self.group.leads and (ended or time.monotonic() - saved >= SAVE_EVERY):
                    rows = [asdict(m) for m in history]
                    kept = loop.tensors() | {"stage": index}
                    save_state(unfinished, settings=self.settings, history=rows, tensors=kept)
                    saved = time.monotonic()
            skipped = loop.skipped
        return history, skipped, resumed_from

    def _loop(self, stage: Stage, index: int, skipped: int) -> Loop:
        """A stage with its own optimiser and its own random stream."""
        seed = self.settings["seed"] + index
        loop = Loop(
            self.model,
            torch.optim.AdamW(self.model.parameters(), lr=stage.lr, weight_decay=0.0),
            stage.loss,
            self.train_data,
            settings=self.settings | {"lr": stage.lr, "epochs": stage.epochs, "seed": seed},
            group=self.group,
            augmentation=augmentation(self.settings["augment"], self.train_data, seed=seed),
            progress=self.progress,
        )
        loop.skipped = skipped
        return loop


def _stages(
    loss: str,
    classifier: nn.Module | None,
    sigmas: tuple[float, ...],
    epochs: int,
    lr: float,
    example: Tensor,
) -> tuple[Stage, ...]:
    """The stages of a loss. Raises InvalidSetting where it is unknown or lacks what it needs."""
    if loss not in LOSSES:
        raise InvalidSetting(
            f"the loss {loss!r} is unknown",
            why=f"a denoiser is trained with one of {', '.join(LOSSES)}",
            remedy="leave it out: mse, and then stability where a classifier is given",
        )
    restore = Restoration(sigmas)
    if loss == "mse":
        return (Stage("mse", restore, epochs, lr),)
    if classifier is None:
        raise InvalidSetting(
            f"the loss {loss!r} needs a classifier",
            why="stability is that of a classifier's own answers",
            remedy="name its checkpoint: --for clean.pt, or use --loss mse",
        )
    refuse_without_gradients(classifier, example)
    keep = Stability(classifier, sigmas)
    if loss == "stability":
        return (Stage("stability", keep, epochs, lr),)
    later = max(1, round(STABILITY_SHARE * epochs))
    if epochs < 2:
        raise InvalidSetting(
            "one epoch has no two stages",
            why="mse-stability trains for restoration first and for stability then",
            remedy="give --epochs 2 or more, or one loss: --loss mse",
        )
    return (
        Stage("mse", restore, epochs - later, lr),
        Stage("stability", keep, later, lr * STABILITY_RATE),
    )


def refuse_without_gradients(classifier: Callable[[Tensor], Any], x: Tensor) -> None:
    """Raise InvalidSetting for a classifier whose scores do not depend on its input differentiably."""
    try:
        with torch.enable_grad():
            found = classifier(x.detach().clone().requires_grad_()).requires_grad
    except RuntimeError:  # such as .numpy() of a tensor that is being differentiated
        found = False
    if not found:
        raise InvalidSetting(
            "the classifier gives no gradients",
            why="its scores come from outside torch (onnxruntime, numpy) or were computed under no_grad, and "
            "stability is learned through them",
            remedy="ask it for labels only: --query-access; or train for restoration: --loss mse",
        )


def _network(
    name: str, arguments: Mapping[str, Any], data: Dataset, start: Mapping[str, Tensor] | None
) -> nn.Module:
    """The denoiser to train, new or with the weights to start from."""
    model = build_denoiser(name, arguments, data.input_shape)
    if not any(p.requires_grad for p in model.parameters()):
        raise InvalidSetting(
            f"the denoiser {name!r} has no weights to train",
            why="its parameters are a few numbers, which are matched to the noise instead",
            remedy="use dncnn or unet, or pdenets.denoisers.matching.match_denoiser",
        )
    if start is not None:
        try:
            model.load_state_dict(dict(start))
        except RuntimeError as error:
            raise ArchitectureMismatch(
                f"the weights to start from are not those of this {name}",
                why=(str(error).splitlines() or ["they do not fit"])[-1].strip(),
                remedy="give the arguments and noise levels that they were trained with",
            ) from error
    return model
