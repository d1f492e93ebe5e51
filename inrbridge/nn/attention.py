"""Floor 5: attention between points or tokens, as an integral over the keys.

g(x) = int softmax-weight(x, y) V[f](y) dy, with weights exp(q(x) . k(y) / sqrt(d)) / int exp(q(x) . k(z) / sqrt(d)) dz: what
torch.nn.MultiheadAttention computes where all keys weigh the same. The quadrature weights of the keys enter as their logarithm,
added to the logits, so that points which crowd somewhere, or stand there twice, do not draw attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization, Grid
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.channels import check_channels
from inrbridge.nn.linear import Linear
from inrbridge.nn.resample import Downsample
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.weights import has_equal_weights


class PointAttention(nn.Module):
    """Multi-head attention of every point to all points: values (b, n, channels) to (b, n, channels).

    Between the points of a field it costs n^2 products of vectors, between tokens little; `keys` bounds it. Positions do
    not enter: put a PositionalEncoding before it.

    Args:
        channels: c, divided among the heads.
        heads: number of (Q, K, V) triplets, each with a softmax of its own.
        context_channels: c of a second field, whose points are the keys (torch's kdim and vdim); None: the same c.
        keys: attend to at most so many points, with their weights: the first of the sequence, which a nested sampler makes a
            coarser discretization (order points of your own at random), or strides along the axes of a grid.
        bias: whether the projections add one.
        generator: source of the initial weights, drawn as torch draws them.

    >>> PointAttention(64, 4).query.weight.shape
    torch.Size([64, 64])
    """

    def __init__(self, channels: int, heads: int, *, context_channels: int | None = None, keys: int | None = None,
                 bias: bool = True, generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigError(f"Got {channels} channels for {heads} heads, expected a number of heads that divides the channels.")
        if keys is not None and keys < 1:
            raise ConfigError(f"Got keys={keys}, expected at least 1 point to attend to, or None for all.")
        self.channels, self.heads, self.keys = channels, heads, keys
        self.context_channels = channels if context_channels is None else context_channels
        self.query = Linear(channels, channels, bias, generator=generator)
        self.key, self.value = (Linear(self.context_channels, channels, bias, generator=generator) for _ in range(2))
        self.output = Linear(channels, channels, bias, generator=generator)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        for layer in (self.query, self.key, self.value, self.output) if bias else ():
            nn.init.zeros_(layer.bias)

    @classmethod
    def from_discrete(cls, layer: nn.MultiheadAttention, keys: int | None = None) -> PointAttention:
        """Copy a torch.nn.MultiheadAttention. Dropout of attention weights is not carried over."""
        unlike = layer.kdim != layer.vdim or layer.bias_k is not None or layer.add_zero_attn
        if unlike:
            raise ConfigError(
                f"Got {layer} with kdim {layer.kdim}, vdim {layer.vdim}, bias_k {layer.bias_k is not None} and add_zero_attn "
                f"{layer.add_zero_attn}, expected keys and values of one field and nothing added to them."
            )
        bias = layer.in_proj_bias is not None
        like = layer.out_proj.weight
        copy = cls(layer.embed_dim, layer.num_heads, context_channels=layer.kdim, keys=keys, bias=bias).to(like)
        separate = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        weights = separate if layer.in_proj_weight is None else layer.in_proj_weight.chunk(3)
        biases = layer.in_proj_bias.chunk(3) if bias else (None,) * 3
        parts = (*zip((copy.query, copy.key, copy.value), weights, biases, strict=True),
                 (copy.output, layer.out_proj.weight, layer.out_proj.bias))  # fmt: skip
        with torch.no_grad():
            for part, weight, offset in parts:
                part.weight.copy_(weight)
                if bias:
                    part.bias.copy_(offset)
        return copy

    def forward(self, sampled: Sampled, context: Sampled | None = None) -> Sampled:
        """Attend to the points of `context`, b fields or one on any points; without it to those of `sampled` itself.

        With a context that was sampled on a fixed set the output can be asked for at any points: it is a function. Of torch's
        kernels only one has second derivatives: `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` for gradient penalties.
        """
        check_channels(sampled, self.channels, f"PointAttention({self.channels}, {self.heads})")
        source = sampled if context is None else context
        check_channels(source, self.context_channels, f"the context of PointAttention({self.channels}, {self.heads})")
        b, fields = len(sampled.values), len(source.values)
        if fields not in (1, b):
            raise ShapeMismatch(f"Got {fields} fields as the context of {b} in PointAttention, expected one for each or for all.")
        if self.keys is not None:
            source = _at_most(source, self.keys)
        query = self._split(self.query(sampled).values)
        key, value = (self._split(part(source).values).expand(b, -1, -1, -1) for part in (self.key, self.value))
        mask = _log_weights(source.discretization, query)
        values = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(sampled.with_values(values.transpose(1, 2).flatten(2)))

    def _split(self, values: Tensor) -> Tensor:
        """(b, n, c) to (b, heads, n, c / heads)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}, keys={self.keys}"


def _log_weights(keys: Discretization, like: Tensor) -> Tensor | None:
    """What is added to the logits of n keys (1, 1, 1, n): log of their quadrature weights, relative to the largest."""
    if has_equal_weights(keys):
        return None
    weights = keys.weights.double()
    return (weights / weights.max()).log().to(like)[None, None, None]


def _at_most(sampled: Sampled, count: int) -> Sampled:
    """Thin to at most `count` points: the prefix of the sequence, or whole strides along each axis of a grid."""
    points = sampled.discretization
    if len(points) <= count:
        return sampled
    if not isinstance(points.structure, Grid):
        return Sampled(points.prefix(count), sampled.values[:, :count])
    stride = 2
    while len(points.thin(stride)) > count:
        stride += 1
    return Downsample(stride)(sampled)
