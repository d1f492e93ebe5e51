"""Floor 6: the continuous twin of a vision transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, unknown_name
from inrbridge.models.layers import Convolutions, require_counts
from inrbridge.models.net import INRNet, linear
from inrbridge.nn import (
    GlobalIntegral,
    LayerNorm,
    Linear,
    PositionalEncoding,
    Sampled,
    Sequential,
    Tokenize,
    TransformerBlock,
)

_TOKENS = ("cells", "conv", "points")


class Transformer(INRNet):
    """Tokens, a positional encoding, transformer blocks, the global integral, a linear head.

    With "cells" on the grid of `resolution` cells along each axis it is the discrete net, weight for weight: its tokens are
    those of a patch embedding, averaged after the last block. The number of tokens does not depend on the points.

    Args:
        width: channels of the tokens. depth: blocks. heads: of the attention.
        hidden: width of the blocks' pointwise network; None: 4 * width.
        tokens: "cells": inner products over (resolution / patch) regions along each axis, on any domain (`nn.Tokenize`);
            "conv": the points that a convolution of kernel and stride `patch` leaves;
            "points": all points, mixed pointwise, of which the first `keys` are attended to.
        resolution, patch: size of the grid that tokens are taken from, and of a token in its cells.
        keys: attend to at most so many tokens, a coarser prefix of them; None: to all, with "points" to 256.
        frequencies: of the positional encoding, in cycles across the domain.
        dropout: of the blocks.
        points: size of the net's own discretization; None: one point for each grid cell.
    """

    name = "transformer"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, width: int = 64, depth: int = 4, heads: int = 4,
                 hidden: int | None = None, tokens: str = "cells", resolution: int = 32, patch: int = 4, keys: int | None = None,
                 frequencies: Sequence[float] = (0.5, 1.0, 2.0, 4.0), dropout: float = 0.0, activation: str = "gelu",
                 points: int | None = None, generator: torch.Generator | None = None):  # fmt: skip
        if tokens not in _TOKENS:
            raise unknown_name("kind of tokens", tokens, _TOKENS, ConfigError)
        require_counts(self.name, width=width, depth=depth, heads=heads, hidden=hidden, resolution=resolution, patch=patch,
                       keys=keys, points=points)  # fmt: skip
        if resolution % patch:
            raise ConfigError(f"Got patches of {patch} cells at resolution {resolution}, expected a size that divides it.")
        options = {"width": width, "depth": depth, "heads": heads, "hidden": hidden, "tokens": tokens, "resolution": resolution,
                   "patch": patch, "keys": keys, "frequencies": list(frequencies), "dropout": dropout,
                   "activation": activation, "points": points}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options)
        if tokens == "cells":
            self.require_points((resolution // patch) ** domain.unit_dim)
            self.tokens = Tokenize(in_channels, width, resolution // patch, patch=patch, dim=domain.unit_dim, generator=generator)
        elif tokens == "conv":
            self.require_points(patch**domain.intrinsic_dim)
            convolve = Convolutions(domain, resolution, generator=generator)
            self.tokens = convolve(in_channels, width, size=patch, stride=patch)
        else:
            self.tokens = Linear(in_channels, width, generator=generator)
            keys = 256 if keys is None else keys
        self.encoding = PositionalEncoding(frequencies)
        self.blocks = Sequential(*(
            TransformerBlock(width, heads, hidden=hidden, dropout=dropout, activation=activation, keys=keys, generator=generator)
            for _ in range(depth)
        ))  # fmt: skip
        self.norm = LayerNorm(width)
        self.integral = GlobalIntegral()
        self.head = linear(width, classes, generator)

    def compute(self, sampled: Sampled) -> Tensor:
        return self.head(self.integral(self.norm(self.blocks(self.encoding(self.tokens(sampled))))))
