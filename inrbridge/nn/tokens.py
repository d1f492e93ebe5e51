"""Floor 5: tokens, the embeddings of a field's restrictions to regions (Wang & Golland 2023, appendix C, "Tokenization")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization, Grid, derived
from inrbridge.domains import Box, Torus
from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name
from inrbridge.nn.bases import LegendreBasis
from inrbridge.nn.channels import check_channels
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.splines import CompactSplines, SplineBasis
from inrbridge.nn.weights import has_equal_weights
from inrbridge.stencils import Cells, Reconstruct, build_stencil
from inrbridge.stencils.cells import cell_centres, cell_nodes

_RULES = ("reconstruct", "quadrature")


class Tokenize(nn.Module):
    """Embed what a field is on each of a number of regions: values (b, n, in) to tokens (b, prod(shape), out).

    token_j = sum_ik W_ik <f_i, B_k>_j + bias: inner products over region j, under its normalized measure, with polynomials
    or splines B_k of the place in the region, mixed by learned weights. The regions are cells of the unit cube, carried onto
    the domain by its measure-preserving map: disjoint, of equal measure, and they cover it. The tokens live on their
    centres, with equal weights; on a box these form a grid, in row-major order as torch flattens patches.

    A `Region` has no such map: its tokens are the parts of the cells of its envelope that lie in it, and weigh as much as
    these measure, as do those of a `Weighted` domain. One without points is the bias, and weighs nothing.

    Args:
        in_channels, out_channels: c of the field and of the tokens.
        shape: regions along each axis of the unit cube (of a box, its own axes); one number: the same for `dim` axes.
        degree: B_k are the products of Legendre polynomials up to this total degree.
        patch: nodes along each axis of a region, instead of polynomials: `weight` (out, in, *patch) is that of a convolution of
            kernel and stride `patch`, which this equals on a grid of patch * shape cells.
        rule: what a patch is on other points. "reconstruct": the field at the nodes, by moving least squares as in `Conv`; a
            node outside the domain gives 0. "quadrature": the inner product with the B-spline surface through the weights
            (times the number of nodes), the paper's integral, which averages what is finer than the nodes, but needs many
            points for weights that oscillate.
        dim: axes of the unit cube, where `shape` is one number.
        bias: whether to add one.
        generator: source of the initial weights, drawn as torch draws those of a convolution.

    >>> Tokenize(3, 64, 7).weight.shape, Tokenize(3, 64, 14, patch=16).weight.shape
    (torch.Size([64, 3, 6]), torch.Size([64, 3, 16, 16]))
    """

    def __init__(self, in_channels: int, out_channels: int, shape: int | Sequence[int], *, degree: int = 2,
                 patch: int | Sequence[int] | None = None, rule: str = "reconstruct", dim: int = 2, bias: bool = True,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.shape = (shape,) * dim if isinstance(shape, int) else tuple(shape)
        if not self.shape or min(self.shape) < 1:
            raise ConfigError(
                f"Got {shape} as the shape of tokens, expected a number of regions along each axis, for instance 7."
            )
        if rule not in _RULES:
            raise unknown_name("rule of patches", rule, _RULES, ConfigError)
        self.rule = rule if patch is not None else "quadrature"
        unit = Box.unit(len(self.shape))
        if patch is None:
            self.functions, self.patch = LegendreBasis(unit, degree, total=True), None
            size = (len(self.functions),)
        else:
            self.patch = size = (patch,) * len(self.shape) if isinstance(patch, int) else tuple(patch)
            self.functions = SplineBasis(unit, size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        bound = 1 / math.sqrt(in_channels * math.prod(size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @classmethod
    def from_discrete(cls, layer: nn.Module, shape: int | Sequence[int], rule: str = "reconstruct") -> Tokenize:
        """Copy a patch embedding: a torch.nn.Conv1d/2d/3d whose stride is its kernel size.

        Args:
            shape: patches along each axis of the images that the layer was made for: 224 pixels in patches of 16: 14.
            rule: what it is on other points.
        """
        plain = all(s == 1 for s in layer.dilation) and layer.groups == 1 and layer.padding in ("valid", (0,) * len(layer.stride))
        if layer.stride != layer.kernel_size or not plain:
            raise ConfigError(
                f"Got {layer}, expected a patch embedding: a convolution whose stride is its kernel size, without padding, "
                "dilation or groups; use Conv for others."
            )
        out_channels, in_channels, *patch = layer.weight.shape
        copy = cls(in_channels, out_channels, shape, patch=patch, rule=rule, dim=len(patch), bias=layer.bias is not None)
        copy.load_state_dict(layer.state_dict())
        return copy.to(layer.weight)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, self.in_channels, f"Tokenize({self.in_channels}, {self.out_channels})")
        source = sampled.discretization
        if source.domain.unit_dim != len(self.shape):
            raise ShapeMismatch(
                f"Got a field on {source.domain}, whose unit cube has {source.domain.unit_dim} axes, in a Tokenize into "
                f"{self.shape} regions; pass one number of regions for each axis."
            )
        matrix = _patch_matrix(source, Cells(self.shape, self.functions))
        kernel = None if matrix is None else self._on_places(matrix)
        if kernel is not None:
            values = _patches(sampled.values, source.structure.shape, self.shape) @ kernel.flatten(0, 1)
        elif self.rule == "quadrature":
            values = build_stencil(self._integrals, source).apply(sampled.values, self._kernel)
        else:
            rule = Reconstruct(((0.0,) * source.domain.intrinsic_dim,), (source.spacing,) * source.domain.intrinsic_dim)
            stencil = build_stencil(rule, source, cell_nodes(source, self.shape, self.patch))
            nodes = stencil.interpolate(sampled.values).unflatten(1, (-1, math.prod(self.patch)))  # (b, regions, nodes, c)
            values = nodes.flatten(2) @ self._on_nodes.flatten(0, 1)
        return Sampled(cell_centres(source, self.shape), values if self.bias is None else values + self.bias)

    def _on_places(self, matrix: Tensor) -> Tensor | None:
        """Weights (points, in, out) of the values at a region's points, given what these contribute to the inner products.

        None where the points are not the nodes and the field is to be reconstructed at these.
        """
        if self.patch is None:
            return torch.einsum("pk,ock->pco", matrix.to(self.weight), self.weight)
        matrix = matrix * math.prod(self.patch)
        if matrix.shape[0] == matrix.shape[1] and torch.allclose(matrix, torch.eye(len(matrix), dtype=matrix.dtype)):
            return self._on_nodes
        return torch.einsum("pk,kco->pco", matrix.to(self.weight), self._on_nodes) if self.rule == "quadrature" else None

    @property
    def _on_nodes(self) -> Tensor:
        """The weights of a convolution as (nodes, in, out)."""
        return self.weight.flatten(2).permute(2, 1, 0)

    @property
    def _integrals(self) -> Cells:
        """The rule of the inner products: of splines the compact ones, so that a point feeds few of them."""
        compact = self.functions if self.patch is None else CompactSplines(self.patch, self.functions.degree)
        return Cells(self.shape, compact)

    @property
    def _kernel(self) -> Tensor:
        """Weights (k, in, out) of the functions of `_integrals`."""
        weight = self.weight if self.patch is None else self.functions.coefficients(self.weight) * math.prod(self.patch)
        return weight.flatten(2).permute(2, 1, 0)

    def extra_repr(self) -> str:
        kind = f"degree={self.functions.degree}" if self.patch is None else f"patch={self.patch}, rule={self.rule!r}"
        return f"{self.in_channels}, {self.out_channels}, shape={self.shape}, {kind}"


@derived
def _patch_matrix(source: Discretization, rule: Cells) -> Tensor | None:
    """What a region's points, row-major, contribute to its inner products (points, k): one matrix for all regions, where the
    points are a grid that they divide. None elsewhere."""
    structure = source.structure
    divides = isinstance(structure, Grid) and isinstance(source.domain, Box | Torus) and has_equal_weights(source)
    if not divides or any(n % cells for n, cells in zip(structure.shape, rule.shape, strict=True)):
        return None
    sizes = [n // cells for n, cells in zip(structure.shape, rule.shape, strict=True)]
    places = []
    for axis, (size, low, high) in enumerate(zip(sizes, *source.domain.bounds, strict=True)):
        start, step, cells = structure.start[axis], structure.step[axis], rule.shape[axis]
        place = (start - low + step * torch.arange(size, dtype=torch.float64)) * cells / (high - low)
        if abs(step * size * cells - (high - low)) > 1e-6 * step or place[0] < 0 or place[-1] >= 1:
            return None
        places.append(place)
    place = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).reshape(-1, len(sizes))
    return rule.functions(place) / len(place)


def _patches(values: Tensor, shape: tuple[int, ...], cells: tuple[int, ...]) -> Tensor:
    """Bring the values (b, n, c) of each cell of a grid together: (b, cells, points * c)."""
    b, _, c = values.shape
    split = [part for n, count in zip(shape, cells, strict=True) for part in (count, n // count)]
    d = len(shape)
    order = (0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1)
    return values.reshape(b, *split, c).permute(order).reshape(b, math.prod(cells), -1)
