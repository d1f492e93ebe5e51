"""Slow twins of volume rendering, closed-form radiance fields, and a tiny format that builds radiance fields."""

import math

import torch

from inrbridge import Box, Format, FunctionField, Product, Sphere, read_native

NAMES = ("red", "green", "blue", "density")


def ball(radius=0.5, density=3.0, colour=(0.9, 0.4, 0.1), box=None, directions=True):
    """A ball of constant density and colour around the origin."""
    box = box or Box.centered(3)

    def values(x):
        inside = (x[..., :3].norm(dim=-1, keepdim=True) < radius).to(x)
        return torch.cat([torch.tensor(colour).to(x).expand(*x.shape[:-1], 3), density * inside], -1)

    return FunctionField(values, Product(box, Sphere()) if directions else box, 4, NAMES)


def ball_opacity(origins, directions, radius=0.5, density=3.0):
    """1 - exp(-density * chord), the chord of rays (n, 3), (n, 3) through the ball."""
    along = -(origins * directions).sum(-1)
    nearest = (origins + along[:, None] * directions).norm(dim=-1)
    chord = 2 * (radius**2 - nearest**2).clamp(min=0).sqrt()
    return 1 - torch.exp(-density * chord)


def march(colours, densities, starts, ends, background):
    """The sums of the NeRF paper, sample after sample: colours (n, s, 3) -> (n, 3), opacities (n,), depths (n,)."""
    n, s = densities.shape
    colour, opacity, depth = torch.zeros(n, 3).to(colours), torch.zeros(n).to(colours), torch.zeros(n).to(colours)
    for ray in range(n):
        light = 1.0
        for i in range(s):
            alpha = 1 - torch.exp(-densities[ray, i] * (ends[ray, i] - starts[ray, i]))
            colour[ray] = colour[ray] + light * alpha * colours[ray, i]
            opacity[ray] = opacity[ray] + light * alpha
            depth[ray] = depth[ray] + light * alpha * (starts[ray, i] + ends[ray, i]) / 2
            light = light * (1 - alpha)
    return colour + (1 - opacity)[:, None] * background, opacity, depth / opacity.clamp(min=torch.finfo(opacity.dtype).eps)


def pose_spherical(theta, phi, radius):
    """The matrices of the NeRF codes, angles in degrees: out by radius, up by phi, around by theta, z upward."""
    theta, phi = math.radians(theta), math.radians(phi)
    out = torch.eye(4)
    out[2, 3] = radius
    tilt = torch.tensor([[1, 0, 0, 0], [0, math.cos(phi), -math.sin(phi), 0], [0, math.sin(phi), math.cos(phi), 0], [0, 0, 0, 1]])
    turn = torch.tensor(
        [[math.cos(theta), 0, -math.sin(theta), 0], [0, 1, 0, 0], [math.sin(theta), 0, math.cos(theta), 0], [0, 0, 0, 1]]
    )
    flip = torch.tensor([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return flip @ turn @ tilt @ out


class VoxelField(torch.nn.Module):
    """Colours and a density on a grid, trilinear between its points; no view dependence."""

    format = "voxel"
    channel_names = NAMES

    def __init__(self, domain, channels, size, generator):
        super().__init__()
        self.domain, self.channels, self.size = domain, channels, size
        self.grid = torch.nn.Parameter(0.1 * torch.randn(1, 4, size, size, size, generator=generator))

    @property
    def architecture(self):
        return {"size": self.size}

    def forward(self, coords):
        low, high = (torch.tensor(bound[:3]).to(coords) for bound in self.domain.bounds)
        unit = (coords[..., :3] - low) / (high - low) * 2 - 1
        values = torch.nn.functional.grid_sample(self.grid.to(coords), unit.reshape(1, -1, 1, 1, 3), align_corners=True)
        values = values.reshape(4, -1).T.reshape(*coords.shape[:-1], 4)
        return torch.cat([values[..., :3].sigmoid(), torch.nn.functional.softplus(10 * values[..., 3:] - 1)], -1)


class VoxelFormat(Format):
    """Native files of `VoxelField`."""

    api, name = 1, "voxel"

    def recognizes(self, probe):
        return False

    def open(self, path):
        return read_native(path, self)

    def build(self, domain, channels, *, generator=None, size: int = 16):
        return VoxelField(domain, channels, size, generator)

    def fit_defaults(self):
        return {"steps": 60, "lr": 0.1}
