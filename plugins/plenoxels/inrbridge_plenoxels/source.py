"""What a reader is given of a foreign file, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inrbridge import Assumptions, Domain, errors

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Source:
    """Arrays and single values of a file, the account of what is assumed, and the padding that the caller told."""

    arrays: Mapping[str, Tensor]
    scalars: Mapping[str, object]
    assume: Assumptions
    padding: float | None = None

    def array(self, name: str, shape: Shape) -> Tensor:
        """Return an array of this shape; a word stands for any size of at least 1.

        Raises:
            CannotOpen: it is absent or of another shape.
        """
        found = self.arrays.get(name)
        fits = found is not None and len(found.shape) == len(shape)
        fits = fits and all(a == b or (isinstance(b, str) and a) for a, b in zip(found.shape, shape, strict=True))
        if not fits:
            got = "absent" if found is None else f"of shape {tuple(found.shape)}"
            raise errors.CannotOpen(f'its array "{name}" is {got}, expected ({", ".join(map(str, shape))}); the file is damaged.')
        return found

    def numbers(self, name: str, default: float | None = None) -> list[float]:
        """Return three finite numbers, one for each axis; where the file has them not, the default three times.

        Raises:
            CannotOpen: they are no three finite numbers, or absent without a default.
        """
        if name not in self.arrays and default is not None:
            self.assume.choose(name, None, default)
            return [default] * 3
        found = self.array(name, (3,)).double()
        if not bool(found.isfinite().all()):
            raise errors.CannotOpen(f'its "{name}" is {found.tolist()}, expected three finite numbers; the file is damaged.')
        return found.tolist()

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number of the file.

        Raises:
            CannotOpen: it is none, or absent without a default.
        """
        found = self.scalars.get(name)
        if found is None and default is not None:
            return int(self.assume.choose(name, None, default, kind=int))
        if isinstance(found, bool) or not isinstance(found, int):
            raise errors.CannotOpen(f'its "{name}" is {found!r}, expected a whole number; the file is damaged.')
        return found


@dataclass
class Parts:
    """A field to be made: its domain, the options of `build`, and its state."""

    domain: Domain
    options: dict
    state: dict[str, Tensor] = field(default_factory=dict)


def check_whole(name: str, array: Tensor) -> Tensor:
    """Return an array of whole numbers as int32.

    Raises:
        CannotOpen: it holds others, or such as do not fit.
    """
    if array.is_floating_point() or array.dtype == torch.bool:
        raise errors.CannotOpen(f'its array "{name}" holds {array.dtype}, expected whole numbers; the file is damaged.')
    if array.dtype == torch.int64 and array.numel() and int(array.abs().max()) >= 2**31:
        raise errors.CannotOpen(f'its array "{name}" holds numbers beyond 2^31; the file is damaged.')
    return array.int()
