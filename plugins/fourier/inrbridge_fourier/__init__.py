"""Fourier-feature networks as an inrbridge format: random Fourier features and a ReLU MLP (Tancik et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inrbridge import Format, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from inrbridge import Domain, Probe
    from inrbridge_fourier.field import FourierField

__version__ = "0.1.0"
_TURN = 6.283185307179586


class FourierFormat(Format):
    """Opens, builds and saves Fourier-feature networks."""

    api, name = 1, "fourier"
    suffixes = (".safetensors", ".pt", ".pth", ".ckpt")
    description = "ReLU MLP on random Fourier features (Tancik et al. 2020)"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_fourier.dialects import detect

        return detect(probe.tensors) is not None

    def open(
        self,
        path: Path,
        *,
        dialect: str | None = None,
        final: str | None = None,
        low: float | Sequence[float] | None = None,
        high: float | Sequence[float] | None = None,
    ) -> FourierField:
        """Read a network that inrbridge or another code base wrote.

        What a foreign file does not tell is taken from its dialect and listed in the field's `assumed`.

        Args:
            dialect: name of the writer, see `inrbridge_fourier.dialects.DIALECTS`.
            final: activation of the readout: "identity" or "sigmoid".
            low, high: corners of the domain, one number for all coordinates or one for each.
        """
        from inrbridge import Probe, errors, read_native
        from inrbridge_fourier.foreign import open_foreign

        told = {"dialect": dialect, "final": final, "low": low, "high": high}
        if not Probe(path).native:
            return open_foreign(path, **told)
        given = [name for name, value in told.items() if value is not None]
        if given:
            raise errors.ConfigError(
                f"Got {', '.join(given)} for a file that inrbridge wrote, expected none; it tells them itself."
            )
        return read_native(path, self)

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None, width: int | Sequence[int] = 64,
              layers: int = 3, features: int = 64, sigma: float | None = 5.0, angle: float = _TURN, final: str = "identity",
              normalize: bool = True, axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float]] | None = None) -> FourierField:  # fmt: skip
        """Return a fresh trainable network: `layers` ReLU layers of `width` units on `features` random frequencies.

        `sigma` is the deviation of the frequencies, in cycles across the domain: about a fifth of the samples
        per side resolves an image without inventing values between its pixels.
        """
        import torch

        from inrbridge_fourier.field import FourierField

        hidden = [width] * layers if isinstance(width, int) else list(width)
        field = FourierField(domain, channels, features, hidden, sigma=sigma, angle=angle, final=final, normalize=normalize,
                             axes=axes, channel_ranges=channel_ranges)  # fmt: skip
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 500, "lr": 5e-3}


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [FourierFormat()]
