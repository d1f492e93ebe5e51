"""Floor 8: the descent itself: b fields of one architecture fitted side by side, states stacked on axis 0.

The loss is the sum over the fields of their mean squared errors, those of radiance as `measures.py` counts them, so that each
gradient, and Adam's step, is the one that the field would see alone. Fields that are rows of layers get their gradients from
one pass of a compiled kernel, others from autograd. On a GPU a step is recorded once as a CUDA graph and replayed: it finds its
points and its rate by a counter on the device, and nothing waits for the host.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from inrbridge import batched
from inrbridge.field import Layered
from inrbridge.fitting.measures import Measure
from inrbridge.stacking import DEFAULT_MEMORY, evaluate_states

TICK = 20  # steps between two signs of life
WARM_UP = 3  # steps before a graph is recorded, which leave their traces in torch's caches
_log = logging.getLogger(__name__)


def optimize(
    template: nn.Module,
    states: Mapping[str, Tensor],
    pool: Tensor,
    targets: Tensor,
    order: Sequence[int],
    lr: float,
    tick: Callable[[int], object] = lambda steps: None,
) -> dict[str, Tensor]:
    """Fit b fields by Adam with a cosine schedule; return their states.

    Args:
        template: a field of the architecture; only its parameters that require gradients are trained, buffers are not.
        states: its state dict with a leading axis of b rows.
        pool: (blocks, n, d) points; targets: (blocks, b, n, c) values there.
        order: the block of each step.
        tick: called now and then with the count of steps since the last call.
    """
    trained = {name for name, value in template.named_parameters() if value.requires_grad and value.is_floating_point()}
    states = {name: value.clone().requires_grad_(name in trained) for name, value in states.items()}
    if any(value.requires_grad for value in states.values()) and order:
        rates = [0.5 * lr * (1 + math.cos(math.pi * step / len(order))) for step in range(len(order))]
        descent = _Descent(template, states, pool, targets, order, rates)
        run = descent.replay if pool.device.type == "cuda" else descent.run
        with torch.enable_grad():
            run(_Ticks(tick, len(order)))
    return {name: value.detach() for name, value in states.items()}


class _Ticks:
    """Count steps, and tell of them now and then."""

    def __init__(self, tick: Callable[[int], object], steps: int):
        self.tick, self.steps, self.done = tick, steps, 0

    def __call__(self) -> None:
        self.done += 1
        if self.done % TICK == 0 or self.done == self.steps:
            self.tick(TICK if self.done % TICK == 0 else self.done % TICK)


class _Descent:
    def __init__(self, template, states, pool, targets, order, rates):
        self.template, self.states, self.pool, self.targets = template, states, pool, targets
        self.order, self.rates = order, rates
        self.measure, self.size = Measure.of(template), targets[0, 0].numel()
        self.parameters = [value for value in states.values() if value.requires_grad]
        self.memory = DEFAULT_MEMORY if pool.device.type == "cpu" else sys.maxsize  # all is kept for the gradient anyway

    def run(self, tick: Callable[[], None]) -> None:
        optimizer = torch.optim.Adam(self.parameters, lr=self.rates[0], fused=True)
        for block, rate in zip(self.order, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            self._step(optimizer, self.pool[block], self.targets[block])
            tick()

    def _step(self, optimizer: torch.optim.Optimizer, points: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        if not self._set_gradients(points, targets):
            values = evaluate_states(self.template, self.states, points, memory=self.memory)
            loss = self.measure.losses(values, targets).sum() / self.size
            loss.backward()  # which lays gradients out as the parameters are, on which fused Adam relies
        optimizer.step()

    def _set_gradients(self, points: Tensor, targets: Tensor) -> bool:
        """Set the gradients without autograd, where fields are rows of layers and errors plain squares; say whether it was so."""
        if self.measure.density is not None or not isinstance(self.template, Layered):
            return False
        found = self.template.as_layers(self.states, points)
        if found is None or points.device.type != "cpu":
            return False
        tensors = [tensor for layer in found[1] for tensor in layer[:2]]
        if not {id(value) for value in self.parameters} <= {id(tensor) for tensor in tensors}:
            return False
        gradients = batched.fitting_gradients(*found, targets, 1 / self.size)
        if gradients is None:
            return False
        for tensor, gradient in zip(tensors, gradients, strict=True):
            if tensor is not None and tensor.requires_grad:
                tensor.grad = gradient
        return True

    def replay(self, tick: Callable[[], None]) -> None:
        """Descend on a GPU by a recorded step; where a field cannot be recorded, step by step."""
        device, steps = self.pool.device, len(self.order)
        order, rates = torch.tensor(self.order, device=device), torch.tensor(self.rates, device=device)
        at, rate = torch.zeros(1, dtype=torch.long, device=device), rates[0].clone()
        optimizer = torch.optim.Adam(self.parameters, lr=rate, fused=True, capturable=True)

        def step() -> None:
            block = order.index_select(0, at)
            rate.copy_(rates.index_select(0, at)[0])
            self._step(optimizer, self.pool.index_select(0, block)[0], self.targets.index_select(0, block)[0])
            at.add_(1)

        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # real steps already
                for _ in range(min(WARM_UP, steps)):
                    step()
                    tick()
            torch.cuda.current_stream().wait_stream(side)
            if steps <= WARM_UP:
                return
            graph, advance = torch.cuda.CUDAGraph(), step
            try:
                with torch.cuda.graph(graph):
                    step()
                advance = graph.replay
            except RuntimeError as error:  # something in it waits for the host
                _log.info("a step of %s cannot be recorded: %s", type(self.template).__name__, error)
            for _ in range(steps - WARM_UP):
                advance()
                tick()
