"""A dataset in memory and a small net, so that training is tested without files and without the architectures."""

import torch

from inrbridge import Box, FunctionField, GridField, nn, stack
from inrbridge.models import INRNet


def striped(vertical: bool, phase: float) -> FunctionField:
    """An image of stripes along one of the axes: the class is the axis."""
    return FunctionField(lambda x: torch.sin(3 * x[..., int(vertical), None] + phase), Box.centered(2), 1, ("gray",))


def striped_grid(vertical: bool, phase: float, side: int = 12) -> GridField:
    """The same as samples on a grid."""
    middles = (torch.arange(side) + 0.5) / side * 2 - 1
    coords = torch.stack(torch.meshgrid(middles, middles, indexing="ij"), dim=-1)
    return GridField(striped(vertical, phase)(coords), Box.centered(2), channel_names=("gray",))


class MemoryDataset:
    """Items alternate between two classes and, every third, between two formats."""

    domain, channels, ranges = Box.centered(2), ("gray",), {}

    def __init__(self, count: int = 24, class_names=("across", "down")):
        self.class_names = list(class_names)
        self.labels = torch.tensor([i % 2 for i in range(count)])
        self.formats = ["grid" if i % 3 else "formula" for i in range(count)]
        phases = torch.rand(count, generator=torch.Generator().manual_seed(7)) - 0.5  # alike: a small net learns them
        makers = {"grid": striped_grid, "formula": striped}
        self.fields = [makers[f](bool(y), float(p)) for f, y, p in zip(self.formats, self.labels, phases, strict=True)]
        self.evaluated = 0

    def __len__(self):
        return len(self.fields)

    def stack(self, indices):
        self.evaluated += len(indices)
        return stack([self.fields[i] for i in indices])

    def batch(self, indices):
        return self.stack(indices), self.labels[list(indices)]


class SmallNet(INRNet):
    """A pointwise net of value and coordinates, integrated: enough to tell stripes of similar phase apart."""

    name = "small"

    def __init__(self, domain, in_channels, classes, *, width: int = 6, dropout: float = 0.0, generator=None):
        super().__init__(domain, in_channels, classes, 64, {"width": width, "dropout": dropout})
        self.mix = nn.Linear(in_channels + domain.dim, width, generator=generator)
        self.drop = nn.Dropout(dropout)
        self.activation = nn.Activation("silu")
        self.mean = nn.GlobalIntegral()
        self.head = torch.nn.Linear(width, classes)

    def compute(self, sampled):
        points = sampled.discretization.points.expand(len(sampled.values), -1, -1)
        sampled = sampled.with_values(torch.cat([sampled.values, points], dim=-1))
        return self.head(self.mean(self.drop(self.activation(self.mix(sampled)))))


def config(folder, **sections) -> dict:
    """A short run of the small net; sections are merged in."""
    base = {
        "data": {"batch_size": 8},
        "model": {"name": "fake_training:SmallNet"},
        "points": {"n": 64},
        "optimizer": {"lr": 0.02, "steps": 6},
        "run": {"out": str(folder), "device": "cpu", "log_every": 1},
    }
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}
