"""Floor 4: what an integral with a tolerance asks for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The error allowed: the larger of an absolute figure and a share of the value."""

    absolute: float
    relative: float = 0.0

    def allowed(self, value: Tensor) -> Tensor:
        return (self.relative * value.abs()).clamp(min=self.absolute)


@dataclass(frozen=True, eq=False)
class Integral:
    """The integral of a field with a bound of its error, channel by channel.

    `converged` says whether every bound met the tolerance, `reason` why or why not; value and bound hold in both cases.
    """

    value: Tensor  # (channels,), float64
    bound: Tensor  # (channels,), float64
    evaluations: int  # points at which the field was evaluated
    converged: bool
    reason: str

    def with_value(self, value: Tensor, evaluations: int) -> Integral:
        """The same claim of a value that was computed again."""
        return replace(self, value=value, evaluations=evaluations)

    def __repr__(self) -> str:
        pairs = zip(self.value.detach().flatten().tolist(), self.bound.flatten().tolist(), strict=True)
        said = ", ".join(f"{value:.6g} +- {bound:.1g}" for value, bound in pairs)
        return f"Integral({said}; {'converged' if self.converged else 'not converged'}: {self.reason})"
