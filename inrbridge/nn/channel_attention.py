"""Floor 5: attention between channels, which preserves the domain (Wang & Golland 2023, appendix C, eq. 131-134)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.channels import check_channels
from inrbridge.nn.functions import InnerProduct, parametric
from inrbridge.nn.linear import Linear
from inrbridge.nn.sampled import Sampled


class ChannelAttention(nn.Module):
    """Mix the channels of V[f] by a matrix that integrals of the field decide: g(x) = softmax(Q K^T / sqrt(d)) V[f](x).

    Q_j = sum_i <q_ij, f_i> and K_j = sum_i <k_ij, f_i> (eq. 131-132) are d numbers each, learned inner products of the whole
    field; the matrix (d, d) has rows that sum to 1 and acts on the d channels of V[f] at each point. It costs O(n d^2), lives
    on the points it was given, and is not what a vision transformer does: that is `PointAttention`.

    Args:
        in_channels: c of the field.
        channels: d of each head.
        domain: where the functions q and k live.
        heads: number of (Q, K, V) triplets, each with a softmax of its own; the output has heads * channels.
        degree, hidden: of q and k, as in `parametric`: in the domain's basis, or an MLP.
        query_channels: c of a second field that the queries come from (cross-attention); None: the same c.
        value: the layer V (eq. 133), of in_channels to heads * channels, for instance a Conv; None: a Linear.
        generator: source of the initial weights.
    """

    def __init__(self, in_channels: int, channels: int, domain: Domain, *, heads: int = 1, degree: int = 3,
                 hidden: Sequence[int] | None = None, query_channels: int | None = None, value: nn.Module | None = None,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        if channels < 1 or heads < 1:
            raise ConfigError(f"Got {heads} heads of {channels} channels, expected at least one of each.")
        self.in_channels, self.channels, self.heads = in_channels, channels, heads
        total = heads * channels

        def inner_product(count: int) -> InnerProduct:
            # q and k of norm 1 / sqrt(c): the logits of a field of unit channels start near 1 / sqrt(d)
            options = {"degree": degree, "hidden": hidden, "scale": 1 / math.sqrt(count), "generator": generator}
            return InnerProduct(count, parametric(domain, count * total, **options))

        self.query = inner_product(in_channels if query_channels is None else query_channels)
        self.key = inner_product(in_channels)
        self.value = Linear(in_channels, total, generator=generator) if value is None else value

    def matrix(self, sampled: Sampled, query: Sampled | None = None) -> Tensor:
        """Return softmax(Q K^T / sqrt(d)) of each field and head: (b, heads, d, d), rows sum to 1."""
        second = sampled if query is None else query
        check_channels(second, self.query.in_channels, "the queries of a ChannelAttention")
        q = self.query(second).unflatten(1, (self.heads, self.channels))
        k = self.key(sampled).unflatten(1, (self.heads, self.channels))
        return torch.softmax(q[..., :, None] * k[..., None, :] / math.sqrt(self.channels), dim=-1)

    def forward(self, sampled: Sampled, query: Sampled | None = None, at: Sampled | None = None) -> Sampled:
        """Return g on the points of `sampled`.

        Args:
            query: the second field of a cross-attention; its points may be others.
            at: the same fields at other points, where g is wanted instead; the integrals stay those over `sampled`.
        """
        check_channels(sampled, self.in_channels, f"ChannelAttention({self.in_channels}, {self.channels})")
        matrix = self.matrix(sampled, query)
        out = self.value(sampled if at is None else at)
        if out.channels != self.heads * self.channels or len(out.values) != len(matrix):
            raise ShapeMismatch(
                f"Got {out.channels} channels of {len(out.values)} fields from the value layer of a ChannelAttention on "
                f"{len(matrix)} fields, expected {self.heads * self.channels} = heads * channels of as many fields."
            )
        heads = out.values.unflatten(2, (self.heads, self.channels))
        return out.with_values(torch.einsum("bhjk,bnhk->bnhj", matrix, heads).flatten(2))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.channels}, heads={self.heads}"
