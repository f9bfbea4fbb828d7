"""The optimiser steps of one training: batches, schedule, clipping, and a guard against NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from certify.data.dataset import Dataset
from certify.errors import TrainingDiverged
from pdenets.augmentation import Augmentation
from pdenets.distributed import Group
from pdenets.progress import Progress
from pdenets.regularisers import Regulariser

#: Gradients are scaled down to this l2 norm.
GRADIENT_CLIP = 5.0
#: So many non-finite steps in a row end the training.
PATIENCE = 20
#: How the learning rate runs: down to 0 along half a cosine, by fifths, or not at all.
SCHEDULES = ("cosine", "steps", "constant")
#: Shares of a training after which the schedule "steps" takes a fifth: epochs 60, 120 and 160 of 200.
MILESTONES = (0.3, 0.6, 0.8)


class Loop:
    """Runs epochs of one training. ``settings`` gives lr, schedule, epochs, batch_size, seed and average.

    Batches, augmentation, noise and dropout of an epoch depend on (seed, epoch) and on nothing that
    happened before, which is what lets an interrupted training continue exactly.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        regulariser: Regulariser,
        data: Dataset,
        *,
        settings: Mapping[str, Any],
        group: Group,
        augmentation: Augmentation | None = None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.model, self.optimizer, self.regulariser, self.data = model, optimizer, regulariser, data
        self.augmentation = augmentation
        self.lr, self.epochs, self.seed = settings["lr"], settings["epochs"], settings["seed"]
        self.batch_size, self.schedule, self.group = settings["batch_size"], settings["schedule"], group
        self.progress = progress if group.leads else None
        decay = settings.get("average", 0.0)
        #: The running average of the weights and of batch norms' statistics, where one is kept.
        self.averaged = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
            if decay
            else None
        )
        self.device = next(model.parameters()).device
        self.steps = math.ceil(len(data) / self.batch_size)
        self.skipped = self.failures = 0

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """Weights, optimiser and count of skipped steps of an unfinished training."""
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.skipped = tensors["skipped"]
        if self.averaged is not None:
            self.averaged.load_state_dict(tensors["averaged"])

    def tensors(self) -> dict[str, Any]:
        """What ``restore`` needs."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        average = {} if self.averaged is None else {"averaged": self.averaged.state_dict()}
        return state | {"skipped": self.skipped} | average

    def trained(self) -> nn.Module:
        """The network as it stands: the average where one is kept, in place of the last step's weights."""
        return self.model if self.averaged is None else self.averaged.module

    def run_epoch(self, epoch: int) -> None:
        """One pass over the data; raises TrainingDiverged where steps stay non-finite."""
        self.model.train()
        # Processes share the order of the data but not their noise.
        stream = _stream(self.seed, epoch, self.group.rank)
        torch.manual_seed(stream)
        generator = torch.Generator(device=self.device).manual_seed(stream)
        sums: dict[str, float] = {}
        for step, (x, y, weight) in enumerate(self._batches(epoch), start=1):
            self._set_rate((epoch - 1) * self.steps + step - 1)
            losses = self.regulariser.loss(self.model, x, y, generator=generator)
            self._step(weight * torch.stack(list(losses.values())).sum())
            for name, value in losses.items():
                mean = self.group.average(weight * value.detach())
                sums[name] = sums.get(name, 0.0) + float(mean)
            if self.progress is not None:
                means = {name: total / step for name, total in sums.items()}
                self.progress(Progress(epoch, self.epochs, step, self.steps, means, self.skipped))
        self.group.synchronise_buffers(self.model)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, float]]:
        shuffle = torch.Generator().manual_seed(_stream(self.seed, epoch, 0))
        draws = None if self.augmentation is None else self.augmentation.epoch(epoch, len(self.data))
        for rows in torch.randperm(len(self.data), generator=shuffle).split(self.batch_size):
            mine = self.group.share(rows)
            x, y = self.data.x[mine].to(self.device), self.data.y[mine].to(self.device)
            if draws is not None:
                x, y = draws.apply(x, y, mine)
            yield x, y, self.group.weight(rows)

    def _set_rate(self, step: int) -> None:
        """Cosine from ``lr`` at the first step to 0 after the last; fifths; or ``lr`` throughout."""
        rate, total = self.lr, self.epochs * self.steps
        if self.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * step / total)) / 2
        elif self.schedule == "steps":
            rate *= 0.2 ** sum(step / total >= milestone for milestone in MILESTONES)
        for part in self.optimizer.param_groups:
            part["lr"] = rate

    def _step(self, loss: Tensor) -> None:
        """One update, or none where the loss or its gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.average_gradients(self.model)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
        if bool(torch.isfinite(self.group.average(loss.detach())) & torch.isfinite(norm)):
            self.optimizer.step()
            self.failures = 0
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            return
        self.skipped += 1
        self.failures += 1
        if self.failures >= PATIENCE:
            raise TrainingDiverged(
                f"{self.failures} training steps in a row were not finite",
                why="the loss or its gradient became infinite or NaN; no checkpoint was written",
                remedy=f"use a smaller --lr (it was {self.lr}), or check the inputs",
            )


def _stream(seed: int, epoch: int, rank: int) -> int:
    return (seed * 1_000_003 + epoch * 1_009 + rank) % 2**63
