"""Floor 1: every error that inrbridge raises on purpose.

A message has three parts: what was got, what was expected, what to do next. Each class is also the
builtin that a caller would catch anyway, and carries the exit code of the command line
(2: the call is wrong, 1: the call is right but the work failed).
"""

import difflib
from collections.abc import Iterable


class InrBridgeError(Exception):
    """Root of all inrbridge errors; the command line prints its text without a traceback."""

    exit_code = 1


class ConfigError(InrBridgeError, ValueError):
    """A configuration key or value that does not exist or does not fit."""

    exit_code = 2


class UnknownName(InrBridgeError, LookupError):
    """A name (of a sampler, model, layer, ...) that nothing answers to."""

    exit_code = 2

    def __str__(self) -> str:  # LookupError of one argument would print its repr
        return str(self.args[0]) if self.args else ""


class UnknownFormat(UnknownName):
    """No installed format answers to the name, or recognizes the file."""


class AmbiguousFormat(InrBridgeError, LookupError):
    """Two formats claim one file: the caller must choose."""

    exit_code = 2


class CannotOpen(InrBridgeError, OSError):
    """A file is there but does not hold what its format promises."""


class MissingFile(CannotOpen, FileNotFoundError):
    """A path that leads to nothing."""


class NotPermitted(CannotOpen, PermissionError):
    """A file that the user may not read."""


class CannotSave(InrBridgeError, OSError):
    """A field that cannot be written in the format asked for."""


class ShapeMismatch(InrBridgeError, ValueError):
    """A tensor, coordinate or channel count of the wrong shape."""


class NotFinite(InrBridgeError, ValueError):
    """NaN or infinite coordinates, weights or values."""


class OutsideDomain(InrBridgeError, ValueError):
    """Points that do not lie on the domain."""


class EmptyDiscretization(InrBridgeError, ValueError):
    """A discretization without points."""


class PluginError(InrBridgeError, RuntimeError):
    """A plugin that failed to load, or answers in a way the host cannot use."""


class PluginWarning(UserWarning):
    """Some plugin does not work; everything else goes on."""


class StoreError(InrBridgeError, ValueError):
    """A store whose manifest or shards are damaged, incomplete, or lack what was asked for."""


class CannotAlign(InrBridgeError, ValueError):
    """A field that cannot be mapped onto the dataset's domain or channels."""


class MissingDependency(InrBridgeError, ImportError):
    """An optional package that the asked-for work needs."""


class LeftOut(UserWarning):
    """Files of a folder that do not open; the others are used."""


class NotConverged(UserWarning):
    """A tolerance that was not met within the work allowed; the answer says how far it got."""


class SupportTooNarrow(UserWarning):
    """A kernel narrower than the spacing of the points: the layer acts pointwise only."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' for the nearest known name, or an empty string.

    >>> did_you_mean("latice", ["lattice", "sobol"])
    ' Did you mean "lattice"?'
    """
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f' Did you mean "{near[0]}"?' if near else ""


def unknown_name(kind: str, name: object, known: Iterable[str], error: type[InrBridgeError] = UnknownName) -> InrBridgeError:
    """Build the error for a name outside a table: got, expected one of, nearest match."""
    known = sorted(known)
    return error(f'There is no {kind} "{name}"; expected one of: {", ".join(known)}.{did_you_mean(str(name), known)}')
