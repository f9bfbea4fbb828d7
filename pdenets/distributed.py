"""Training on several processes: every process holds the network and takes its share of each batch.

Start with torchrun, which sets the environment this module reads:

    torchrun --nproc-per-node 2 -m certify_cli.main train --data mnist --out mnist.pt

Gradients are averaged over the *global* batch, so the loss curve is that of one process
at the same batch size (batch norm aside, whose statistics are those of the share).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist


@dataclass(frozen=True)
class Group:
    """This process's place among ``size`` processes; alone, nothing is communicated."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """The rows of a global batch that belong to this process; every process gets one at least.

        A batch with fewer rows than processes is taken whole by all of them.
        """
        return rows if len(rows) < self.size else rows[self.rank :: self.size]

    def weight(self, rows: Tensor) -> float:
        """What this process's mean loss counts in the average over all processes."""
        return len(self.share(rows)) * self.size / len(rows) if len(rows) >= self.size else 1.0

    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size > 1:
            for parameter in model.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def average(self, value: Tensor) -> Tensor:
        """The mean of a detached scalar over the processes."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def synchronise_buffers(self, model: nn.Module) -> None:
        """Average running statistics, so that all processes evaluate and save the same network."""
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.average(buffer))

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def process_group(device: torch.device | str) -> Iterator[Group]:
    """The group torchrun started this process in, or a group of one; closed at the end if opened here."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    opened = not dist.is_initialized()
    if opened:
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        if opened:
            dist.destroy_process_group()


def leads() -> bool:
    """Whether this process reports results: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def local_device(device: torch.device | str) -> torch.device:
    """The device of this process: the GPU of its local rank where "cuda" is asked for."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
