"""Floor 4: fields at other coordinates: affine maps, other orders and orientations, slices and parts of the domain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from inrbridge.domains import Box, Domain, Product, Sphere
from inrbridge.errors import CannotAlign, NotFinite, OutsideDomain, ShapeMismatch
from inrbridge.field import Field
from inrbridge.transforms.base import Matrix, Transform
from inrbridge.transforms.directions import has_directions
from inrbridge.transforms.returning import check_border, returned


class AffineField(Transform):
    """A field at affinely mapped coordinates: g(x) = f(A x + t).

    Args:
        inner: the field f on a domain of dimension d_inner.
        domain: where g lives, of dimension d.
        matrix: A, d_inner rows of d numbers; any slice, rotation or scaling.
        offset: t, d_inner numbers.
        border: what becomes of A x + t outside the domain of f: "clamp", "reflect" or "circular" (`transforms.returning`);
            None leaves it there, for maps that stay inside.
    """

    def __init__(self, inner: Field, domain: Domain, matrix: Matrix, offset: Sequence[float], border: str | None = None):
        super().__init__(inner, domain)
        if border is not None:
            check_border(border, inner.domain)
        self.border = border
        self.matrix = tuple(tuple(float(v) for v in row) for row in matrix)
        self.offset = tuple(float(v) for v in offset)
        rows, columns = inner.domain.dim, domain.dim
        if len(self.matrix) != rows or len(self.offset) != rows or any(len(row) != columns for row in self.matrix):
            raise ShapeMismatch(
                f"Got an affine map with {len(self.matrix)} rows and {len(self.offset)} offsets from {domain} to {inner.domain}, "
                f"expected a matrix of {rows} rows of {columns} numbers and {rows} offsets."
            )
        if not all(math.isfinite(v) for row in (*self.matrix, self.offset) for v in row):
            raise NotFinite("Got NaN or infinite numbers in an affine map, expected finite ones.")
        # A diagonal map is the common one (boxes onto boxes) and needs no matrix product.
        off_diagonal = any(v != 0 for i, row in enumerate(self.matrix) for j, v in enumerate(row) if i != j)
        self._diagonal = None if off_diagonal or rows != columns else tuple(self.matrix[i][i] for i in range(rows))

    @property
    def signature(self):
        return "affine", self.domain, self.matrix, self.offset, self.border

    def around(self, inner):
        return AffineField(inner, self.domain, self.matrix, self.offset, self.border)

    def map_coords(self, coords):
        offset = coords.new_tensor(self.offset)
        if self._diagonal is not None:
            moved = coords * coords.new_tensor(self._diagonal) + offset
        else:
            moved = coords @ coords.new_tensor(self.matrix).T + offset
        return moved if self.border is None else returned(moved, self.inner.domain, self.border)


def rescale(field: Field, domain: Domain) -> Field:
    """Return the field stretched, axis by axis, from its own bounds onto those of `domain`.

    >>> from inrbridge.field import FunctionField
    >>> wide = rescale(FunctionField(lambda x: x, Box.unit(1), 1), Box((0.0,), (10.0,)))
    >>> float(wide(torch.tensor([5.0])))
    0.5
    """
    if domain == field.domain:
        return field
    if domain.dim != field.domain.dim:
        raise ShapeMismatch(
            f"Got {domain} to rescale a field on {field.domain} to, expected a domain of dimension {field.domain.dim}; "
            "use SliceField to lower the dimension."
        )
    (to_low, to_high), (from_low, from_high) = domain.bounds, field.domain.bounds
    pairs = zip(to_low, to_high, from_low, from_high, strict=True)
    scale, offset = [], []
    for low, high, inner_low, inner_high in pairs:
        scale.append((inner_high - inner_low) / (high - low))
        offset.append((inner_low * high - inner_high * low) / (high - low))
    matrix = [[s if i == j else 0.0 for j in range(domain.dim)] for i, s in enumerate(scale)]
    return AffineField(field, domain, matrix, offset)


class PermuteAxes(Transform):
    """A field with its coordinates in another order: coordinate a of the new field is coordinate axes[a] of the old.

    A matrix stored (row, column) and a function of (x, y) differ by `axes=(1, 0)`. On a Box, or on the product of a Box of
    positions and a Sphere of directions, which are turned along.

    Args:
        axes: each coordinate of the field (of its positions) once.
        mirrored: new coordinates that run backwards between their ends, as y up and y down differ.
    """

    def __init__(self, inner: Field, axes: Sequence[int], mirrored: Sequence[int] = ()):
        axes, mirrored = tuple(int(a) for a in axes), tuple(sorted({int(a) for a in mirrored}))
        turns = has_directions(inner.domain) and isinstance(inner.domain.a, Box) and inner.domain.a.dim == 3
        box = inner.domain.a if turns else _box_of(inner, "permute the axes of")
        if sorted(axes) != list(range(box.dim)) or not set(mirrored) <= set(axes):
            raise ShapeMismatch(
                f"Got axes {axes} with {mirrored} mirrored, expected an order of {tuple(range(box.dim))}: each coordinate once."
            )
        domain = Box([box.low[a] for a in axes], [box.high[a] for a in axes])
        if turns:
            sphere = inner.domain.b
            domain = Product(domain, Sphere(sphere.radius, tuple(sphere.center[a] for a in axes)))
        super().__init__(inner, domain)
        self.axes, self.mirrored = axes, mirrored
        blocks = range(0, domain.dim, box.dim)  # positions, then directions
        old = [block + a for block in blocks for a in axes]
        self._places = [old.index(a) for a in range(domain.dim)]
        flipped = [block + a for block in blocks for a in mirrored]
        self._sign = [-1.0 if a in flipped else 1.0 for a in range(domain.dim)]
        self._ends = [low + high if a in flipped else 0.0 for a, (low, high) in enumerate(zip(*domain.bounds, strict=True))]

    @property
    def signature(self):
        return "permute", self.axes, self.mirrored, self.domain if self.mirrored else None

    def around(self, inner):
        return PermuteAxes(inner, self.axes, self.mirrored)

    def map_coords(self, coords):
        if self.mirrored:
            coords = coords * coords.new_tensor(self._sign) + coords.new_tensor(self._ends)
        return coords[..., self._places]


class SliceField(Transform):
    """A field on a planar slice of its Box: coordinate a of the slice is coordinate axes[a], the others are held fixed.

    Args:
        axes: the coordinates kept, in their new order.
        at: one value for each coordinate held fixed, in their old order; the middle of the box where not given.
    """

    def __init__(self, inner: Field, axes: Sequence[int], at: Sequence[float] | None = None):
        axes = tuple(int(a) for a in axes)
        box = _box_of(inner, "slice")
        if not axes or len(set(axes)) != len(axes) or not all(0 <= a < box.dim for a in axes):
            raise ShapeMismatch(f"Got axes {axes} to keep of {box}, expected distinct numbers from 0 to {box.dim - 1}.")
        fixed = tuple(a for a in range(box.dim) if a not in axes)
        at = tuple((box.low[a] + box.high[a]) / 2 for a in fixed) if at is None else tuple(float(v) for v in at)
        if len(at) != len(fixed):
            raise ShapeMismatch(f"Got {len(at)} values for the {len(fixed)} coordinates {fixed} held fixed; pass one each.")
        for a, value in zip(fixed, at, strict=True):
            if not box.low[a] <= value <= box.high[a]:
                raise OutsideDomain(f"Got a slice at coordinate {a} = {value}, expected it within [{box.low[a]}, {box.high[a]}].")
        super().__init__(inner, Box([box.low[a] for a in axes], [box.high[a] for a in axes]))
        self.axes, self.at = axes, at
        self._fixed = dict(zip(fixed, at, strict=True))

    @property
    def signature(self):
        return "slice", self.axes, self.at

    def around(self, inner):
        return SliceField(inner, self.axes, self.at)

    def map_coords(self, coords):
        columns = [
            torch.full_like(coords[..., 0], self._fixed[a]) if a in self._fixed else coords[..., self.axes.index(a)]
            for a in range(len(self.axes) + len(self._fixed))
        ]
        return torch.stack(columns, dim=-1)


class RestrictField(Transform):
    """A field on a part of its domain: the same coordinates, fewer points."""

    def __init__(self, inner: Field, domain: Domain):
        if domain.dim != inner.domain.dim:
            raise ShapeMismatch(f"Got {domain} as a part of {inner.domain}, expected a domain of dimension {inner.domain.dim}.")
        super().__init__(inner, domain)

    @property
    def signature(self):
        return "restrict", self.domain

    def around(self, inner):
        return RestrictField(inner, self.domain)


def _box_of(field: Field, verb: str) -> Box:
    if not isinstance(field.domain, Box):
        raise CannotAlign(f"Got a field on {field.domain} to {verb}, expected one on a Box; restrict or rescale it first.")
    return field.domain
