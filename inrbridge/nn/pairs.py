"""Floor 5: layers of two fields, F_n x F_m -> F_c or R^k (Wang & Golland 2023, sections 3.1 and B.1, definition 6).

Every such map is a concatenation followed by a layer of one field; products and inner products are offered beside. Two fields
of one domain may be sampled on different points: the second is brought to those of the first. A batch of 1 is shared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.errors import ShapeMismatch
from inrbridge.nn.channels import check_channels
from inrbridge.nn.own_points import Resample
from inrbridge.nn.residual import Sequential
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.weights import promoted


def brought_to(sampled: Sampled, target: Discretization, order: int = 2) -> Sampled:
    """Return a field's values at the points of another discretization of its domain, by local fits of degree `order`."""
    source = sampled.discretization
    if source is target or (source.points.shape == target.points.shape and torch.equal(source.points, target.points)):
        return Sampled(target, sampled.values)
    if source.domain != target.domain:
        raise ShapeMismatch(
            f"Got a field on {source.domain} to join with one on {target.domain}, expected one domain; "
            "rescale or restrict one of the fields (inrbridge.transforms) before sampling."
        )
    return Resample(target, order)(sampled)


def paired(first: Sampled, second: Sampled) -> tuple[Sampled, Sampled]:
    """Return both fields on the points of the first, batches of 1 repeated.

    Raises:
        ShapeMismatch: they live on different domains, or on a curved one with different points, or their batches differ.
    """
    second = brought_to(second, first.discretization)
    b = max(len(first.values), len(second.values))
    if {len(first.values), len(second.values)} - {1, b}:
        raise ShapeMismatch(
            f"Got {len(first.values)} and {len(second.values)} fields to pair, expected as many, or one of either to be shared."
        )
    return (first.with_values(first.values.expand(b, -1, -1)), second.with_values(second.values.expand(b, -1, -1)))


class ConcatPair(nn.Module):
    """Any layer of two fields: concatenate the channels, then apply layers in a row (definition 6 and its remark).

    >>> from inrbridge.nn import Linear
    >>> ConcatPair(Linear(5, 8))
    ConcatPair(
      (body): Sequential(
        (0): Linear(5, 8, bias=True, normalized=False)
      )
    )
    """

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.body = Sequential(*layers)

    def forward(self, first: Sampled, second: Sampled):
        first, second = paired(first, second)
        return self.body(first.with_values(torch.cat([first.values, second.values], dim=2)))


class ProductPair(nn.Module):
    """The pointwise product f g of fields of equal channels; a field of one channel modulates all of the other's."""

    def forward(self, first: Sampled, second: Sampled) -> Sampled:
        first, second = paired(first, second)
        if 1 not in (first.channels, second.channels) and first.channels != second.channels:
            raise ShapeMismatch(
                f"Got fields of {first.channels} and {second.channels} channels to multiply, expected as many, or 1 in one; "
                "put a Linear before it, or use BilinearPair."
            )
        return first.with_values(first.values * second.values)


class BilinearPair(nn.Module):
    """Mix the products of all channels at each point: h_k(x) = sum_ij A_kij f_i(x) g_j(x) + b_k.

    Args:
        in1_channels, in2_channels, out_channels: `weight` is (out, in1, in2), as in torch.nn.Bilinear.
        bias: whether to add b_k.
        generator: source of the initial weights, drawn as torch draws them.
    """

    def __init__(self, in1_channels: int, in2_channels: int, out_channels: int, bias: bool = True, *,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        self.in1_channels, self.in2_channels, self.out_channels = in1_channels, in2_channels, out_channels
        self.weight = nn.Parameter(torch.empty(out_channels, in1_channels, in2_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        bound = 1 / math.sqrt(max(1, in1_channels))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @classmethod
    def from_discrete(cls, layer: nn.Bilinear) -> BilinearPair:
        """Copy a torch.nn.Bilinear."""
        copy = cls(layer.in1_features, layer.in2_features, layer.out_features, layer.bias is not None).to(layer.weight)
        copy.load_state_dict(layer.state_dict())
        return copy

    def forward(self, first: Sampled, second: Sampled) -> Sampled:
        name = f"BilinearPair({self.in1_channels}, {self.in2_channels}, {self.out_channels})"
        check_channels(first, self.in1_channels, f"the first field of {name}")
        check_channels(second, self.in2_channels, f"the second field of {name}")
        first, second = paired(first, second)
        return first.with_values(nn.functional.bilinear(first.values, second.values, self.weight, self.bias))

    def extra_repr(self):
        return f"{self.in1_channels}, {self.in2_channels}, {self.out_channels}, bias={self.bias is not None}"


class InnerProductPair(nn.Module):
    """The inner products <f_i, g_j> of two fields: a layer F_n x F_m -> R^(n m), or R^n (section 3.1).

    Args:
        mean: integrate under the normalized measure dx / |domain|, as all layers do; else under dx.
        matched: only <f_i, g_i>, of fields of equal channels: (b, n) in place of (b, n, m).
    """

    def __init__(self, mean: bool = True, matched: bool = False):
        super().__init__()
        self.mean, self.matched = mean, matched

    def forward(self, first: Sampled, second: Sampled) -> Tensor:
        first, second = paired(first, second)
        if self.matched and first.channels != second.channels:
            raise ShapeMismatch(
                f"Got fields of {first.channels} and {second.channels} channels for matched inner products, expected as many."
            )
        (f, weights), (g, _) = promoted(first), promoted(second)
        products = torch.einsum("n,bni,bni->bi" if self.matched else "n,bni,bnj->bij", weights, f, g)
        scale = 1.0 if self.mean else first.discretization.domain.measure
        return (scale * products).to(first.values.dtype)

    def extra_repr(self):
        return f"mean={self.mean}, matched={self.matched}"
