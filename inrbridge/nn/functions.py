"""Floor 5: learned functions in L2 of a domain, and what a net does with them (Wang & Golland 2023, appendix C).

"Such functions can enable an INR to be modulated by taking its elementwise product with the function, or for global
information to be aggregated in a learned manner by taking its inner product with the function." A function is a field: it has
`domain` and `channels` and maps coords (..., d) to values (..., channels).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Domain
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn.bases import Basis, basis_for, basis_values, check_domain, expand, project
from inrbridge.nn.channels import check_channels
from inrbridge.nn.linear import Linear
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.splines import SplineBasis
from inrbridge.nn.weights import promoted


class ParametricFunction(nn.Module):
    """A function with parameters: coords (..., d) -> (..., channels). Subclasses write `forward`."""

    def __init__(self, domain: Domain, channels: int):
        super().__init__()
        self.domain, self.channels = domain, channels

    def at(self, discretization: Discretization, like: Tensor) -> Tensor:
        """Return the values at the points (n, channels), in the dtype and on the device of `like`."""
        check_domain(discretization, self.domain)
        return self(discretization.points.to(like))

    def inner(self, sampled: Sampled) -> Tensor:
        """Return sum_i <f_i, g_ij> under the normalized measure (b, out), g_ij being function number i * out + j."""
        values, weights = promoted(sampled)
        functions = weights[:, None, None] * self.at(sampled.discretization, values).unflatten(1, (sampled.channels, -1))
        return (values.flatten(1) @ functions.flatten(0, 1)).to(sampled.values.dtype)


class BasisFunction(ParametricFunction):
    """sum_k a_jk B_k(x) with learned `coefficients` (channels, k).

    Args:
        basis: such as `basis_for(domain, degree)`, or a SplineBasis; it knows its domain and length.
        channels: number of functions.
        scale: where the basis is orthonormal, the root mean square over the domain of each function at the start.
        generator: source of the initial coefficients, normal ones.
    """

    def __init__(self, basis: Basis, channels: int, *, scale: float = 1.0, generator: torch.Generator | None = None):
        super().__init__(basis.domain, channels)
        self.basis = basis
        self.coefficients = nn.Parameter(torch.empty(channels, len(basis)))
        nn.init.normal_(self.coefficients, std=scale / math.sqrt(len(basis)), generator=generator)

    @classmethod
    def through(cls, values: Tensor, domain: Box, order: int | None = None) -> BasisFunction:
        """Return the B-spline surface through values (channels, *shape) at the centres of the equal cells of a box.

        What a discrete net has learned for each place, as a function: the positions of a vision transformer's tokens, a mask.
        """
        if values.ndim != domain.dim + 1:
            raise ShapeMismatch(
                f"Got values of shape {tuple(values.shape)} on {domain}, expected (channels, ..) and {domain.dim} axes of cells."
            )
        function = cls(SplineBasis(domain, tuple(values.shape[1:]), order), len(values)).to(values)
        with torch.no_grad():
            function.coefficients.copy_(values.flatten(1))
        return function

    def forward(self, coords: Tensor) -> Tensor:
        return nn.functional.linear(self.basis(coords), self.coefficients.to(coords))

    def inner(self, sampled: Sampled) -> Tensor:
        # by the coefficients of the field: the functions themselves are never evaluated
        coefficients = self.coefficients.to(sampled.values).unflatten(0, (sampled.channels, -1))
        return torch.einsum("bck,cok->bo", project(sampled, self.basis), coefficients)

    def at(self, discretization: Discretization, like: Tensor) -> Tensor:
        return basis_values(self.basis, discretization, like) @ self.coefficients.to(like).mT

    def extra_repr(self) -> str:
        return f"{self.basis}, channels={self.channels}"


class MLPFunction(ParametricFunction):
    """A small network of the coordinates, on any domain: these are scaled to [-1, 1], or become cosine and sine if they repeat.

    Args:
        domain: where it lives.
        channels: number of functions.
        hidden: widths of the hidden layers.
        activation: between them, a smooth one by default.
        scale: of the last layer's initial weights; 1: values of the size that torch's layers give.
        generator: source of the initial weights, drawn as torch draws them.
    """

    def __init__(self, domain: Domain, channels: int, hidden: Sequence[int] = (32, 32), *,
                 activation: Callable[[Tensor], Tensor] = nn.functional.gelu, scale: float = 1.0,
                 generator: torch.Generator | None = None):  # fmt: skip
        super().__init__(domain, channels)
        self.activation = activation
        widths = (_seen(domain, torch.zeros(1, domain.dim)).shape[-1], *hidden, channels)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        for layer in self.layers:
            bound = (scale if layer is self.layers[-1] else 1.0) / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, coords: Tensor) -> Tensor:
        hidden = _seen(self.domain, coords).to(self.layers[0].weight.dtype)
        for layer in self.layers[:-1]:
            hidden = self.activation(layer(hidden))
        return self.layers[-1](hidden).to(coords.dtype)

    def extra_repr(self) -> str:
        return f"{self.domain}, channels={self.channels}"


def parametric(domain: Domain, channels: int, *, degree: int = 3, hidden: Sequence[int] | None = None, scale: float = 1.0,
               generator: torch.Generator | None = None) -> ParametricFunction:  # fmt: skip
    """Return learned functions on a domain: in its basis up to `degree`, or by an MLP whose hidden widths are given."""
    if hidden is not None:
        return MLPFunction(domain, channels, hidden, scale=scale, generator=generator)
    return BasisFunction(basis_for(domain, degree), channels, scale=scale, generator=generator)


class Modulate(nn.Module):
    """Multiply a field by a learned function at each point: f_i(x) g_i(x).

    Args:
        function: of as many channels as the field, or of one for all; such as `parametric(domain, channels)`.
    """

    def __init__(self, function: ParametricFunction):
        super().__init__()
        self.function = function

    def forward(self, sampled: Sampled) -> Sampled:
        return sampled.with_values(sampled.values * _on_points(self.function, sampled, "Modulate"))


class Shift(nn.Module):
    """Add a learned function at each point, f_i(x) + g_i(x): a positional encoding that is learned.

    Args:
        function: of as many channels as the field, or of one for all; such as `parametric(domain, channels)`, or of what a
            vision transformer has learned for its tokens `BasisFunction.through(positions, domain)`.
    """

    def __init__(self, function: ParametricFunction):
        super().__init__()
        self.function = function

    def forward(self, sampled: Sampled) -> Sampled:
        return sampled.with_values(sampled.values + _on_points(self.function, sampled, "Shift"))


class InnerProduct(nn.Module):
    """Aggregate a field into a vector by learned functions: y_j = sum_i <g_ij, f_i>, values (b, n, in) to (b, out) (eq. 131).

    The inner products are integrals under the normalized measure dx / |domain|.

    Args:
        in_channels: c of the field.
        function: of in_channels * out channels, g_ij being number i * out + j; such as `parametric(domain, in * out)`.
    """

    def __init__(self, in_channels: int, function: ParametricFunction):
        super().__init__()
        if in_channels < 1 or function.channels % in_channels:
            raise ConfigError(
                f"Got {function.channels} functions for the inner products of {in_channels} channels, expected a multiple: "
                "in_channels * out."
            )
        self.in_channels, self.out_features, self.function = in_channels, function.channels // in_channels, function

    def forward(self, sampled: Sampled) -> Tensor:
        check_channels(sampled, self.in_channels, f"InnerProduct({self.in_channels})")
        return self.function.inner(sampled)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_features}"


class Decode(nn.Module):
    """Turn a vector into a field: it holds the coefficients of an orthonormal basis (section 3.1), a layer R^k -> L2.

    Args:
        basis: such as `basis_for(domain, degree)`.
        channels: c of the field.
        features: length of the vector, mapped to the coefficients by a learned layer `mix`; None: channels * len(basis), the
            coefficients themselves, those of a channel together.
        generator: source of the initial weights of `mix`.
    """

    def __init__(self, basis: Basis, channels: int, features: int | None = None, *, generator: torch.Generator | None = None):
        super().__init__()
        self.basis, self.channels = basis, channels
        count = channels * len(basis)
        self.features = count if features is None else features
        self.mix = None if features is None else Linear(features, count, generator=generator)

    def forward(self, vector: Tensor, discretization: Discretization) -> Sampled:
        """Evaluate the fields of vectors (b, features) at the points of a discretization: values (b, n, channels)."""
        if vector.ndim != 2 or vector.shape[1] != self.features:
            raise ShapeMismatch(
                f"Got vectors of shape {tuple(vector.shape)} in Decode, expected (fields, {self.features}); "
                f"build it with features={vector.shape[-1]}."
            )
        if self.mix is not None:
            vector = nn.functional.linear(vector, self.mix.weight, self.mix.bias)
        return expand(vector.unflatten(1, (self.channels, len(self.basis))), self.basis, discretization)

    def extra_repr(self) -> str:
        return f"{self.basis}, channels={self.channels}, features={self.features}"


def _on_points(function: ParametricFunction, sampled: Sampled, layer: str) -> Tensor:
    """The values of a function of one channel or of as many as the field (n, 1 or c)."""
    if function.channels != 1:
        check_channels(sampled, function.channels, f"a {layer} by {function.channels} functions")
    return function.at(sampled.discretization, sampled.values)


def _seen(domain: Domain, coords: Tensor) -> Tensor:
    """What a network sees of coordinates: numbers in [-1, 1], of those that repeat the cosine and sine."""
    low, high, periods = (
        torch.as_tensor(v, dtype=coords.dtype, device=coords.device) for v in (*domain.bounds, domain.axis_periods)
    )
    repeats = periods > 0
    place = 2 * (coords - low) / (high - low) - 1
    angle = 2 * math.pi * coords[..., repeats] / periods[repeats]
    return torch.cat([place[..., ~repeats], angle.cos(), angle.sin()], dim=-1)
