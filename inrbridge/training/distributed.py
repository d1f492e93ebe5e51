"""Floor 8: several processes: the only file that reads RANK, LOCAL_RANK and WORLD_SIZE.

`torchrun --nproc-per-node 4 -m inrbridge train c.toml` runs the same code as `inrbridge train c.toml`; absent variables
mean one process. The CPU talks over gloo, GPUs over NCCL. Every process draws the same minibatch and the same points and
works on its share of the fields, so that the result does not depend on the number of processes (up to rounding;
BatchNorm takes its statistics over all of them).
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from inrbridge.errors import ConfigError, InrBridgeError, PluginError

TIMEOUT = datetime.timedelta(minutes=30)  # rank zero may be packing checkpoints while the others wait


@dataclass(frozen=True)
class World:
    """The processes of one run: this one's `rank` of `size`, and the device it works on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: list[int]) -> list[int]:
        """Return this process's contiguous part of a list; parts differ by at most one item."""
        first, last = self.rank * len(items) // self.size, (self.rank + 1) * len(items) // self.size
        return items[first:last]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        for tensor in tensors if self.size > 1 else ():
            moved = tensor.to(self.device)
            dist.all_reduce(moved)
            tensor.copy_(moved)

    def on_main(self, work: Callable[[], object]) -> None:
        """Run a piece of work in rank zero; the others wait for it, and fail when it fails."""
        error = None
        if self.is_main:
            try:
                work()
            except Exception as caught:  # told to the others first, then raised again
                error = caught
        failed = torch.tensor([float(error is not None)])
        self.add_up([failed])
        if error is not None:
            raise error
        if failed.item():
            raise InrBridgeError("Got a failure in process 0, expected none; see its message.")

    def require_same(self, what: str, value: object) -> None:
        """Fail in all processes when they disagree on a value, instead of hanging in a later exchange."""
        if self.size == 1:
            return
        digest = int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7], "big")
        mine = torch.tensor([digest, -digest], device=self.device)
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        if int(mine[0]) != -int(mine[1]):
            raise PluginError(
                f"Process {self.rank} has {what} {value!r}, other processes have others; expected the same everywhere: "
                "install the same packages on each machine (see: inrbridge doctor)."
            )

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that gradients are averaged over the processes."""
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model


def is_main() -> bool:
    """Say whether this process is the one that talks."""
    return int(os.environ.get("RANK", 0)) == 0


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end; nested calls share one group."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    opens = size > 1 and not dist.is_initialized()
    if opens:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank, size, chosen)
    finally:
        if opens:
            gc.collect()  # a wrapped model in a cycle would keep the group's threads until the interpreter is torn down: an abort
            dist.destroy_process_group()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a name; "auto" and "cuda" give each local process its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f'Got the device "{name}", expected "auto", "cpu", "cuda" or "cuda:N".') from error
    if device.type == "cuda":
        found = torch.cuda.device_count()
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index >= found:
            raise ConfigError(f'Got the device "{device}", but {found} GPUs are visible; choose another, or run.device = "cpu".')
    return device
