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

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None, width: int | Sequence[int] = 64,
              layers: int = 3, omega_0: float = 30.0, hidden_omega: float = 30.0, final: str = "identity", normalize: bool = True,
              axes: Sequence[str] | None = None, channel_ranges: Sequence[Sequence[float]] | None = None) -> SirenField:  # fmt: skip
        """Return a fresh trainable network; `layers` counts the sine layers, each of `width` units."""
        import torch

        from inrbridge_siren.field import SirenField

        hidden = [width] * layers if isinstance(width, int) else list(width)
        field = SirenField(domain, channels, hidden, omega_0=omega_0, hidden_omega=hidden_omega, final=final, normalize=normalize,
                           axes=axes, channel_ranges=channel_ranges)  # fmt: skip
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 500, "lr": 1e-3}


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [SirenFormat()]
