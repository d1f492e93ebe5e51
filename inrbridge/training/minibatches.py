"""Floor 8: the minibatch of each step, read at the points of the step: a function of seed and step, however many processes."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from inrbridge.nn.sampled import Sampled
from inrbridge.training.augmenting import Views, augmented, recoloured
from inrbridge.training.config import TrainConfig
from inrbridge.training.distributed import World
from inrbridge.training.points import PointSource, SampleCache
from inrbridge.training.seeding import Noise, derive, generator
from inrbridge.training.tasks import Batch, Origin, Task


class Minibatches:
    """The minibatches of a run, of which each process reads its own share.

    Args:
        dataset: the training set. per_epoch: minibatches in an epoch.
    """

    def __init__(self, config: TrainConfig, world: World, dataset, task: Task, per_epoch: int):
        self.config, self.world, self.dataset, self.task, self.per_epoch = config, world, dataset, task, per_epoch
        self.source = PointSource(dataset.domain, config.points, config.run.seed, world.device)
        self.cache = SampleCache(dataset, 0 if config.augment.is_active else config.points.cache * 2**20, world.device)
        self._order: tuple[int, list[int]] = (-1, [])

    def items(self, step: int) -> list[int]:
        """Return the items of a step: the epoch's permutation, cut; a remainder shorter than a minibatch is left out."""
        epoch, part = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(len(self.dataset), generator=self._chance("order", epoch)).tolist())
        size = self.config.data.batch_size
        return self._order[1][part * size : (part + 1) * size]

    def read(self, step: int, model: nn.Module) -> Batch:
        """Read this process's share of a minibatch at the points of the step, with all that the task asks for."""
        indices, draw, augment = self.items(step), self.source.draw(step), self.config.augment
        count, device = len(indices), self.world.device
        mine, places = self.world.share(indices), self.world.share(list(range(count)))
        values = self.cache.values(mine, draw, len(self.dataset.channels))
        chance, seen = self._chance("augment", step), None
        points = draw.discretization.points
        if augment.moves:
            seen = Views.draw(self.dataset.domain, augment, count, self._chance("augment", step)).of(places).to(device)
            points = augmented(draw.discretization, augment, count, chance)[places]
        evaluate = functools.partial(self._values, mine, places, count, chance.get_state())
        if values is None:
            values = evaluate(points)
        labels = torch.as_tensor(self.dataset.labels)[mine].to(device) if self.task.has_labels else None
        noise = Noise((derive(self.config.run.seed, "noise", step, place) for place in places), device)

        def read(coords: Tensor) -> Tensor:
            return evaluate(coords if seen is None else seen.there(coords))

        def chances(what: str, place: int | None = None) -> torch.Generator:
            return self._chance("targets", step, what, *(() if place is None else (places[place],)))

        batch = Batch(Sampled(draw.discretization, values), labels, noise=noise)
        return self.task.complete(batch, Origin(model, self.dataset, mine, read, seen, chances))

    @torch.no_grad()
    def _values(self, items: list[int], places: list[int], count: int, colours: Tensor, points: Tensor) -> Tensor:
        """Evaluate items, which are these places of `count`, at points; their colours follow from the state of a generator."""
        values = self.dataset.stack(items).to(self.world.device)(points)
        chance = torch.Generator()
        chance.set_state(colours)
        return recoloured(values, self.config.augment, self.dataset.channels, count, places, chance)

    def _chance(self, *purpose: object) -> torch.Generator:
        return generator(self.config.run.seed, *purpose)
