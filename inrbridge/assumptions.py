"""Floor 4: what a file does not tell, and where each answer came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from inrbridge.errors import ConfigError


class Assumptions:
    """Chooses between what the caller gives, a configuration beside the file, and the default of a dialect, and keeps account.

    Args:
        dialect: name of the dialect that the defaults belong to.
        sidecar: values of the configuration beside the file, by dotted name.
        sidecar_name: its file name.

    >>> known = Assumptions("vsitzmann", {"omega": 10}, "config.json")
    >>> known.choose("omega_0", None, 30.0, key="omega"), known.choose("hidden_omega", None, 30.0), known.choose("low", 0, -1.0)
    (10.0, 30.0, 0.0)
    >>> known.sentences
    ('omega_0 = 10 (config.json)', 'hidden_omega = 30 (default of dialect vsitzmann)')
    """

    def __init__(self, dialect: str, sidecar: Mapping[str, object] | None = None, sidecar_name: str = "config"):
        self.dialect, self.sidecar, self.sidecar_name = dialect, dict(sidecar or {}), sidecar_name or "config"
        self._sentences: list[str] = []

    def choose(self, name: str, given: object, default: object, key: str | None = None, kind: Callable = float) -> object:
        """Return the value of an option, and write down where it came from unless it was given.

        Args:
            given: what the caller said; None leaves it to the others.
            key: name in the sidecar; values that `kind` does not take are passed over.
            kind: makes the value: float, int, str, bool.

        Raises:
            ConfigError: what was given is no value of this kind.
        """
        if given is not None:
            try:
                return _made(kind, given)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"Got {name} = {given!r}, expected a {getattr(kind, '__name__', 'value')}.") from error
        if key is not None and self.sidecar.get(key) is not None:
            try:
                value = _made(kind, self.sidecar[key])
            except (TypeError, ValueError):
                pass
            else:
                self.note(f"{name} = {_spell(value)} ({self.sidecar_name})")
                return value
        value = default if default is None else _made(kind, default)
        self.note(f"{name} = {_spell(value)} (default of dialect {self.dialect})")
        return value

    def note(self, text: str) -> None:
        """Write down a sentence."""
        if text not in self._sentences:
            self._sentences.append(text)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that was assumed, for a field's `assumed`."""
        return tuple(self._sentences)


def _made(kind: Callable, value: object) -> object:
    if kind is bool and not isinstance(value, bool):
        raise ValueError(value)
    made = kind(value)
    if isinstance(made, float) and not math.isfinite(made):
        raise ValueError(value)
    return made


def _spell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
