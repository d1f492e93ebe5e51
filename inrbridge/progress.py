"""Floor 1: how long work says how far it is, on standard error: a bar on a terminal, a plain line per interval elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

INTERVAL = 10.0  # seconds between two plain lines


class Progress:
    """How far a piece of work is: `with Progress(600, "fit") as bar: ...; bar.advance(8, psnr=41.2)`.

    Args:
        total: units of work; 0 or None when it is not known.
        label: what is being done, shown in front.
        show: False or None shows nothing (the default of every Python call); True writes to standard error;
            a callable is called as `show(done, total, figures)` after each step.
        unit: what one unit of work is called.
    """

    def __init__(self, total: int | None, label: str, show: bool | Callable[[int, int | None, Mapping], object] | None = None,
                 unit: str = "step"):  # fmt: skip
        self.total, self.label, self.unit = total, label, unit
        self.done, self.figures = 0, {}
        self._call = show if callable(show) else None
        self._talks = bool(show) and not callable(show)
        self._start = self._said = time.monotonic()
        self._bar = self._open_bar() if self._talks and sys.stderr.isatty() else None

    def _open_bar(self):
        from tqdm import tqdm

        return tqdm(total=self.total or None, desc=self.label, unit=self.unit, file=sys.stderr, dynamic_ncols=True, leave=True)

    def advance(self, n: int = 1, **figures: float | str) -> None:
        """Count n more units as done; figures (`psnr=41.2`) are shown beside the count."""
        self.done += n
        self.figures.update(figures)
        if self._call is not None:
            self._call(self.done, self.total, dict(self.figures))
        if self._bar is not None:
            if self.figures:
                self._bar.set_postfix_str(_spell(self.figures), refresh=False)
            self._bar.update(n)
        elif self._talks and time.monotonic() - self._said >= INTERVAL:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        of = f"/{self.total}" if self.total else ""
        figures = f"  {_spell(self.figures)}" if self.figures else ""
        print(
            f"{self.label}: {self.done}{of} {self.unit}s, {self._said - self._start:.0f} s{figures}", file=sys.stderr, flush=True
        )

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._bar is not None:
            self._bar.close()
        elif self._talks:
            self._say()
        self._bar, self._talks = None, False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def _spell(figures: Mapping[str, float | str]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
