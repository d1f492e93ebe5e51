"""Features that a network may read in place of its coordinates: waves (sines and cosines) or bumps around centres."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

ENCODINGS = ("none", "waves", "bumps")


class Waves(nn.Module):
    """x -> [x if `raw`, cos(v), sin(v)], v = F (angle x); F (m, d) is fixed.

    Positional and random Fourier features differ in F and in the order of the columns, which the layer behind takes up.
    """

    def __init__(self, dim: int, features: int, *, angle: float, raw: bool):
        super().__init__()
        self.angle, self.raw = float(angle), raw
        self.width = 2 * features + (dim if raw else 0)
        self.register_buffer("frequencies", torch.empty(features, dim))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the frequencies from the standard normal distribution."""
        self.frequencies.normal_(generator=generator)

    def forward(self, x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Encode (..., d) with F (m, d), or (b, n, d) with F (b, m, d) -> (..., width)."""
        phase = (self.angle * x) @ state["frequencies"].to(x.dtype).mT
        return torch.cat([x, phase.cos(), phase.sin()] if self.raw else [phase.cos(), phase.sin()], -1)


class Bumps(nn.Module):
    """x -> exp(-(s_k |x - c_k|^2)^2) for m centres c (m, d) of sharpness s (m,): `RBFLayer` of github.com/vsitzmann/siren."""

    def __init__(self, dim: int, features: int):
        super().__init__()
        self.width = features
        self.centres = nn.Parameter(torch.empty(features, dim))
        self.sharpness = nn.Parameter(torch.empty(features))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the centres evenly from [-1, 1]^d, all of sharpness 10."""
        self.centres.uniform_(-1, 1, generator=generator)
        self.sharpness.fill_(10)

    def forward(self, x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Encode (..., d) with centres (m, d), or (b, n, d) with centres (b, m, d) -> (..., m)."""
        centres, sharpness = state["centres"].to(x.dtype), state["sharpness"].to(x.dtype)
        if centres.ndim == 3:
            centres, sharpness = centres.unsqueeze(1), sharpness.unsqueeze(1)
        squares = sum((x[..., k, None] - centres[..., k]) ** 2 for k in range(x.shape[-1]))  # no (..., m, d) in memory
        return torch.exp(-((sharpness * squares) ** 2))


def make_encoding(kind: str, dim: int, features: int, *, angle: float = 2 * math.pi, raw: bool = False) -> nn.Module | None:
    """Return the encoding of this kind with its tensors unset; None for "none"."""
    if kind == "waves":
        return Waves(dim, features, angle=angle, raw=raw)
    return Bumps(dim, features) if kind == "bumps" else None
