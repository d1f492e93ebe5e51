"""Floor 1: which kernel computes an operator: the first path that serves the device and dtype at hand.

Three paths, the quickest first: "gpu" (Triton), "compiled" (C++, built on first use) and "plain" (torch alone, everywhere).
They compute the same numbers up to rounding, so that one may stand in for another at any call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from inrbridge.errors import ConfigError
from inrbridge.ops.bilinear import BilinearOperator, form_of
from inrbridge.ops.multilinear import Multilinear

PATHS = ("gpu", "compiled", "plain")
Operator = TypeVar("Operator")

_forced: list[str] = []  # of this process: backward passes run in threads of their own


@contextmanager
def using(path: str) -> Iterator[None]:
    """Compute every operator by one path, for tests and benchmarks: "gpu", "compiled" or "plain".

    Raises:
        ConfigError: there is no such path; and at the call of an operator, where the path does not serve it.
    """
    if path not in PATHS:
        raise ConfigError(f'Got the path "{path}", expected one of: {", ".join(PATHS)}.')
    _forced.append(path)
    try:
        yield
    finally:
        _forced.pop()


@dataclass(frozen=True, eq=False)
class Paths(Generic[Operator]):
    """The ways to compute one operator.

    Args:
        makers: for each path what makes the operator for the device and dtype of an empty tensor, or returns None where the path
            does not serve them; asked once, at the first call.
    """

    makers: Mapping[str, Callable[[Tensor], Operator | None]]
    _made: dict = field(default_factory=dict, repr=False)

    def beside(self, like: Tensor) -> Operator:
        """Return the operator that serves tensors like this one."""
        key = (like.device, like.dtype, _forced[-1] if _forced else None)
        if key not in self._made:
            self._made[key] = self._make(like)
        return self._made[key]

    def _make(self, like: Tensor) -> Operator:
        for path in _forced[-1:] or PATHS:
            made = self.makers[path](like.new_empty(0)) if path in self.makers else None
            if made is not None:
                return made
        raise ConfigError(
            f'Got values of {like.dtype} on {like.device} for the path "{_forced[-1]}", which does not serve them here; expected '
            'others; leave `using`, or use "plain".'
        )


@dataclass(frozen=True, eq=False)
class Dispatched:
    """A local operator wherever its arguments are, as a `BilinearOperator` of points-first tensors.

    Args:
        paths: makers of `Paths`.
        n_in, n_out: points of the values and of the output. nodes: of the kernel. groups: of channels.
    """

    paths: Mapping[str, Callable[[Tensor], BilinearOperator | None]]
    n_in: int
    n_out: int
    nodes: int
    groups: int = 1
    form: Multilinear = field(init=False, repr=False)
    _paths: Paths[BilinearOperator] = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "_paths", Paths(self.paths))
        object.__setattr__(self, "form", form_of(self, self.shape))

    def shape(self, place: int, first: Tensor, second: Tensor) -> tuple[int, ...]:
        """Shape of the partial derivative toward a place, of what stands in the other two."""
        if place == 0:  # values, of kernel and cotangent
            return self.n_in, second.shape[1], first.shape[1] * self.groups
        if place == 1:  # kernel, of values and cotangent
            return self.nodes, first.shape[2] // self.groups, second.shape[2]
        return self.n_out, first.shape[1], second.shape[2]  # output, of values and kernel

    def output(self, values, kernel):
        return self.beside(values).output(values, kernel)

    def values_gradient(self, kernel, cotangent):
        return self.beside(cotangent).values_gradient(kernel, cotangent)

    def kernel_gradient(self, values, cotangent):
        return self.beside(values).kernel_gradient(values, cotangent)

    def gradients(self, values, kernel, cotangent):
        return self.beside(values).gradients(values, kernel, cotangent)

    def beside(self, like: Tensor) -> BilinearOperator:
        """Return the operator that serves tensors like this one."""
        return self._paths.beside(like)
