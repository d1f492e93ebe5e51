"""SIREN networks as an inrbridge format: sine layers and a linear readout (Sitzmann et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inrbridge import Format, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from inrbridge import Domain, Probe
    from inrbridge_siren.field import SirenField

__version__ = "0.1.0"


class SirenFormat(Format):
    """Opens, builds and saves SIREN networks."""

    api, name = 1, "siren"
    suffixes = (".safetensors", ".pt", ".pth", ".ckpt")
    description = "MLP with sine activations (Sitzmann et al. 2020)"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_siren.dialects import detect

        return detect(probe.tensors) is not None

    def open(self, path: Path, *, dialect: str | None = None, omega_0: float | None = None, hidden_omega: float | None = None,
             final: str | None = None, low: float | Sequence[float] | None = None, high: float | Sequence[float] | None = None,
             index: int | None = None, convention: str = "file") -> SirenField:  # fmt: skip
        """Read a network that inrbridge or another code base wrote.

        Foreign files do not tell how to evaluate them. Their dialect is found by the names of the tensors, and what
        else is not in the file is taken from the dialect and listed in the field's `assumed`.

        Args:
            dialect: name of the writer, see `inrbridge_siren.dialects.DIALECTS`.
            omega_0, hidden_omega: frequencies of the first and the other sine layers.
            final: activation of the readout: "identity", "sigmoid" or "sine".
            low, high: corners of the domain, one number for all coordinates or one for each.
            index: which network of a file that holds a stack of them.
            convention: "file" keeps the writer's order of coordinates and range of values; "image" turns them
                into rows before columns and values in [0, 1].
        """
        from inrbridge import Probe, errors, read_native
        from inrbridge_siren.foreign import open_foreign

        told = {"dialect": dialect, "omega_0": omega_0, "hidden_omega": hidden_omega, "final": final, "low": low, "high": high,
                "index": index}  # fmt: skip
        if not Probe(path).native:
            return open_foreign(path, **told, convention=convention)
        given = [name for name, value in told.items() if value is not None]
        if given:
            raise errors.ConfigError(
                f"Got {', '.join(given)} for a file that inrbridge wrote, expected none; it tells them itself."
            )
        return read_native(path, self)

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None,
              width: int | Sequence[int] = 64, layers: int = 3, omega_0: float = 30.0, hidden_omega: float = 30.0,
              final: str = "identity", normalize: bool = True, axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float]] | None = None) -> SirenField:  # fmt: skip
        """Return a fresh trainable network; `layers` counts the sine layers, each of `width` units."""
        import torch

        from inrbridge_siren.field import SirenField

        hidden = [width] * layers if isinstance(width, int) else list(width)
        field = SirenField(domain, channels, hidden, omega_0=omega_0, hidden_omega=hidden_omega, final=final, normalize=normalize,
                           axes=axes, channel_ranges=channel_ranges)  # fmt: skip
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 500, "lr": 2e-3}


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [SirenFormat()]
