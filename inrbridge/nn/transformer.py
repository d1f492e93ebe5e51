"""Floor 5: the block of which transformers are made: attention, then a network on the channels of each point."""

from __future__ import annotations

import torch
from torch import nn

from inrbridge.errors import ConfigError
from inrbridge.nn.attention import PointAttention
from inrbridge.nn.dropout import Dropout
from inrbridge.nn.linear import Activation, Linear
from inrbridge.nn.norm import LayerNorm
from inrbridge.nn.residual import Sequential, add
from inrbridge.nn.sampled import Sampled


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x): torch.nn.TransformerEncoderLayer with norm_first, on points or tokens.

    Args:
        channels, heads: of the attention.
        hidden: width of the channel network; None: 4 * channels.
        dropout: probability p, after the attention and after both layers of the network; from a generator (`use_generator`).
        activation: of the channel network, a name or a pointwise callable.
        context_channels, keys: as of PointAttention.
        eps: of both norms.
        generator: source of the initial weights.
    """

    def __init__(self, channels: int, heads: int, *, hidden: int | None = None, dropout: float = 0.0, activation="gelu",
                 context_channels: int | None = None, keys: int | None = None, eps: float = 1e-5, bias: bool = True,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        hidden = 4 * channels if hidden is None else hidden
        self.norm1, self.norm2 = (LayerNorm(channels, eps=eps, bias=bias) for _ in range(2))
        self.attention = PointAttention(
            channels, heads, context_channels=context_channels, keys=keys, bias=bias, generator=generator
        )
        self.dropout = Dropout(dropout)
        self.mlp = Sequential(
            Linear(channels, hidden, bias, generator=generator), Activation(activation), Dropout(dropout),
            Linear(hidden, channels, bias, generator=generator), Dropout(dropout),
        )  # fmt: skip

    @classmethod
    def from_discrete(cls, layer: nn.TransformerEncoderLayer, keys: int | None = None) -> TransformerBlock:
        """Copy a torch.nn.TransformerEncoderLayer(norm_first=True). Its dropout of attention weights is not carried over."""
        if not layer.norm_first:
            raise ConfigError("Got an encoder layer that normalizes after adding, expected one with norm_first=True.")
        attention = layer.self_attn
        block = cls(attention.embed_dim, attention.num_heads, hidden=layer.linear1.out_features, dropout=layer.dropout.p,
                    activation=layer.activation, keys=keys, eps=layer.norm1.eps,
                    bias=layer.linear1.bias is not None).to(layer.linear1.weight)  # fmt: skip
        block.attention = PointAttention.from_discrete(attention, keys)
        pairs = ((block.norm1, layer.norm1), (block.norm2, layer.norm2),
                 (block.mlp[0], layer.linear1), (block.mlp[3], layer.linear2))  # fmt: skip
        for ours, theirs in pairs:
            ours.load_state_dict(theirs.state_dict())
        return block

    def forward(self, sampled: Sampled, context: Sampled | None = None) -> Sampled:
        """Attend to the points of `context`, taken as it is, or to those of `sampled`."""
        sampled = add(sampled, self.dropout(self.attention(self.norm1(sampled), context)))
        return add(sampled, self.mlp(self.norm2(sampled)))
