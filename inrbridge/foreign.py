"""Floor 5: for authors of formats that read files of other code bases: from the names of tensors to a whole field.

choose_dialect -> real_tensor, told_box -> assemble,   inside `fitting_together`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from inrbridge.domains import Box, Domain
from inrbridge.errors import CannotOpen, ConfigError, InrBridgeError, ShapeMismatch, UnknownName, unknown_name

if TYPE_CHECKING:
    from inrbridge.field import Field
    from inrbridge.formats import Format

Dialect = TypeVar("Dialect")
Corner = float | Sequence[float]

_AT_BROKEN_FILES = (ValueError, ArithmeticError, LookupError, RuntimeError, TypeError, AttributeError, OSError, MemoryError)


def choose_dialect(
    name: str | None, dialects: Mapping[str, Dialect], found: Dialect | None, fits: Callable[[Dialect], bool],
    tensors: Iterable[str], hint: str = "see: inrbridge info FILE --all",
) -> Dialect:  # fmt: skip
    """Return the dialect of a file: the one asked for by name, or else the one that was found.

    Args:
        dialects: all there are, by name.
        found: what the names of the tensors tell; None where they fit none.
        fits: says whether the file may be of a dialect.
        tensors: their names, of which messages show the first.
        hint: what to do where none fits.

    Raises:
        UnknownName: there is no dialect of this name.
        CannotOpen: the file fits none, or not the one asked for.
    """
    shown = ", ".join(list(tensors)[:4])
    if name is None:
        if found is None:
            raise CannotOpen(f"its tensors ({shown}, ...) fit none of the dialects {', '.join(dialects)}; {hint}")
        return found
    if name not in dialects:
        raise unknown_name("dialect", name, dialects)
    if not fits(dialects[name]):
        raise CannotOpen(f'its tensors ({shown}, ...) do not fit dialect "{name}"; leave the dialect out to have it found.')
    return dialects[name]


@contextmanager
def fitting_together(has_options: bool) -> Iterator[None]:
    """Turn what is raised at contents that make no sense into CannotOpen.

    Args:
        has_options: whether the caller said something; options that cannot be are then told as they are.
    """
    try:
        yield
    except (ConfigError, UnknownName, ShapeMismatch) as error:
        if has_options:
            raise
        raise CannotOpen(f"its contents do not fit together: {error}") from error
    except (InrBridgeError, PermissionError):
        raise
    except _AT_BROKEN_FILES as error:
        raise CannotOpen(f"its contents do not fit together ({type(error).__name__}: {error}).") from error


def real_tensor(tensors: Mapping[str, Tensor], name: str, *shape: int | None) -> Tensor:
    """Return a tensor in single or double precision; its shape is checked where one is given, None being any size.

    Raises:
        CannotOpen: it is absent, of another shape, or holds no plain real numbers.
    """
    found = tensors.get(name)
    if found is None:
        raise CannotOpen(f'it has no tensor "{name}"; was only a part of the network saved?')
    fits = not shape or (len(shape) == found.ndim and all(a in (None, b) for a, b in zip(shape, found.shape, strict=True)))
    if not fits or not found.is_floating_point() or found.layout != torch.strided:
        wanted = " x ".join("any" if size is None else str(size) for size in shape) or "any"
        raise CannotOpen(
            f'its tensor "{name}" is {found.dtype} of shape {tuple(found.shape)}, expected real numbers (floating-point) of '
            f"shape {wanted}."
        )
    return found.to(torch.float64 if found.dtype == torch.float64 else torch.float32)


def told_box(low: Corner | None, high: Corner | None, lowest: Sequence[float], highest: Sequence[float]) -> Box:
    """Return the box between the corners that were told: one number for all coordinates, or one for each.

    Args:
        low, high: what was told; None takes `lowest` and `highest`.

    Raises:
        ConfigError, ShapeMismatch: no numbers, not one for each coordinate, or not low < high.
    """
    near, far = (_corner(told, default) for told, default in ((low, lowest), (high, highest)))
    if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(near, far, strict=True)):
        raise ConfigError(f"Got a domain from {near} to {far}, expected finite numbers, low < high.")
    return Box(near, far)


def _corner(told: Corner | None, default: Sequence[float]) -> tuple[float, ...]:
    told = default if told is None else told
    try:
        corner = (float(told),) * len(default) if isinstance(told, int | float) else tuple(float(value) for value in told)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Got {told!r} as a corner of the domain, expected numbers.") from error
    if len(corner) != len(default):
        raise ShapeMismatch(f"Got a corner {corner} of the domain, expected {len(default)} numbers, one for each coordinate.")
    return corner


def assemble(format: Format, domain: Domain, channels: int, options: Mapping[str, object], state: Mapping[str, Tensor]) -> Field:
    """Build a field and give it its state; shapes are compared before memory is taken.

    Args:
        options: of the format's `build`.
        state: name -> values, whose memory becomes the field's where it is theirs alone; double precision where all real ones
            have it, else single.

    Raises:
        CannotOpen: the state is not that of the field.
    """
    with torch.device("meta"):
        field = format.build(domain, channels, **options)
    expected = {name: tuple(value.shape) for name, value in field.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise CannotOpen(
                f'its part "{name}" is {found.get(name, "absent")}, expected {expected.get(name, "none")} by the others.'
            )
    kinds = {value.dtype for value in state.values() if value.is_floating_point()}
    kind = torch.float64 if kinds == {torch.float64} else torch.float32
    field.load_state_dict(dict(_owned(state, kind)), assign=True)
    return field


def _owned(state: Mapping[str, Tensor], kind: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield values that share no memory: parts of a larger tensor, and what comes twice, are copied."""
    seen = set()
    for name, value in state.items():
        value = (value.to(kind) if value.is_floating_point() else value).contiguous()
        memory = value.untyped_storage()
        if memory.nbytes() > value.nbytes or memory.data_ptr() in seen:
            value = value.clone()
        seen.add(memory.data_ptr())
        yield name, value
