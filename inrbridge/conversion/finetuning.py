"""Floor 7: fine-tuning: a converted net learns, on points, to say what it says on its own pixel grid.

A short distillation (Hinton, Vinyals & Dean 2015): the discrete network teaches the copy of itself for points of one kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inrbridge.conversion.examples import Fields, checked_points, values_at
from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, UnknownName
from inrbridge.models.converted import Converted
from inrbridge.models.converted.adapted import PointKind
from inrbridge.models.dense import DenseNet
from inrbridge.nn import Sampled
from inrbridge.progress import Progress
from inrbridge.sampling.fixed import named_sampler


def finetune(net: Converted, fields: Fields, discretization: Discretization, *, generator: torch.Generator, steps: int = 200,
             batch_size: int = 32, lr: float = 2e-4, pool: int = 8, labels: Sequence[int] | Tensor | None = None,
             label_weight: float = 0.1, show=None) -> list[float]:  # fmt: skip
    """Train the copy of a converted net that serves points of one kind, in place. On the pixel grid the net stays what it was.

    The loss is |s - t|^2 / |t - mean t|^2, with the outputs s of the copy on points and t of the discrete network on its pixels
    (of a dense net both at the pixels of the output), so 1 is no better than a constant. Adam, its rate falling to zero along a
    cosine; running statistics and dropout as in evaluation. Calibrate first: it is quicker, and training goes on from there.

    Args:
        fields: some hundred or thousand of those the net is for; no labels are needed.
        discretization: the kind of points, sampler and number. Points of a random sampler are drawn anew, `pool` times, so that
            nothing is learned that holds for one shift or scramble alone; others are used as they are.
        generator: order of the fields, and the points. steps, batch_size, lr: of the training.
        labels: class numbers of the fields, for a classifier: `label_weight` times their cross entropy is added to the loss.
        show: whether and how progress is shown, as of `inrbridge.progress.Progress`.

    Returns:
        The loss at each step.

    Raises:
        ConfigError: no fields, a number that makes no sense, or labels that do not fit.
        ShapeMismatch: fields or points are not of the net's domain or channels.
    """
    _check(net, fields, steps, batch_size, lr, pool, labels)
    points = checked_points(net, discretization)
    pools = _drawn(points, pool, generator)
    labels = None if labels is None else torch.as_tensor(labels).to(points.points.device)
    copy, pixels, losses = net.adapt(PointKind.of(points)), net.pixels(), []
    optimizer = torch.optim.Adam(copy.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    was_training = net.training
    net.eval()
    try:
        with Progress(steps, "fine-tune", show) as bar:
            order: list[int] = []
            for step in range(steps):
                if len(order) < min(batch_size, len(fields)):
                    order = torch.randperm(len(fields), generator=generator).tolist()
                chosen, order = order[:batch_size], order[batch_size:]
                here = pools[step % len(pools)]
                optimizer.zero_grad()
                said, taught = _answers(net, fields, chosen, here, pixels.to(here.points))
                loss = relative_error(said, taught)
                if labels is not None:
                    loss = loss + label_weight * functional.cross_entropy(said, labels[chosen])
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
                bar.advance(loss=losses[-1])
    finally:
        optimizer.zero_grad()
        net.train(was_training)
    return losses


def relative_error(said: Tensor, taught: Tensor) -> Tensor:
    """Return |said - taught|^2 / |taught - its mean|^2, both (b, ..., k); the mean is over all but the last axis."""
    around = taught - taught.flatten(0, -2).mean(0)
    return (said - taught).square().sum() / around.square().sum().clamp(min=torch.finfo(taught.dtype).tiny)


def _answers(net: Converted, fields: Fields, chosen: list[int], points: Discretization, pixels: Discretization):
    """Return what the copy says of fields at points and the network on pixels; fields of output at the network's own pixels."""
    seen = Sampled(points, values_at(net, fields, points, chosen))
    with torch.no_grad():
        image = Sampled(pixels, values_at(net, fields, pixels, chosen))
        taught = net.features(image) if isinstance(net, DenseNet) else net.compute(image)
    if isinstance(net, DenseNet):
        return net.read(net.features(seen), taught.discretization.points), taught.values
    return net.compute(seen), taught


def _drawn(points: Discretization, count: int, generator: torch.Generator) -> list[Discretization]:
    """Return `count` sets of points of the same kind; the points themselves, where their sampler draws no others."""
    try:
        sampler = named_sampler(points.sampler)
    except (UnknownName, ConfigError):
        return [points]
    sets = [sampler(points.domain, len(points), generator).to(points.points) for _ in range(count)]
    if len(sets[0]) != len(points) or all(torch.equal(sets[0].points, other.points) for other in (*sets[1:], points)):
        return [points]
    return sets


def _check(net: Converted, fields: Fields, steps: int, batch_size: int, lr: float, pool: int, labels) -> None:
    if len(fields) == 0:
        raise ConfigError("Got no fields to fine-tune on, expected some hundred of those that the net is for.")
    for name, value in (("steps", steps), ("batch_size", batch_size), ("pool", pool)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"Got {name}={value!r} to fine-tune with, expected a whole number from 1 on.")
    if not lr > 0:
        raise ConfigError(f"Got lr={lr!r} to fine-tune with, expected a number above 0.")
    if labels is not None and (isinstance(net, DenseNet) or len(labels) != len(fields)):
        what = "a dense net" if isinstance(net, DenseNet) else f"{len(fields)} fields"
        raise ConfigError(
            f"Got {len(labels)} labels for {what}, expected the class number of each field of a classifier, or none."
        )
