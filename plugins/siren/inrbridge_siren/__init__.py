"""SIREN networks as an inrbridge format: sine layers and a linear readout (Sitzmann et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inrbridge import Format, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from inrbridge import Domain, Probe
    from inrbridge_siren.field import SirenField

__version__ = "0.1.0"


class SirenFormat(Format):
    """Opens, builds and saves SIREN networks."""

    api, name = 1, "siren"
    suffixes = (".safetensors", ".pt", ".pth", ".ckpt", ".npz", ".h5", ".hdf5")
    description = "MLP with sine activations (Sitzmann et al. 2020)"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_siren.dialects import detect

        return detect(probe.tensors, probe.scalars) is not None

    def open(self, path: Path, *, dialect: str | None = None, omega_0: float | None = None, hidden_omega: float | None = None,
             activation: str | None = None, final: str | None = None, low: float | Sequence[float] | None = None,
             high: float | Sequence[float] | None = None, size: Sequence[int] | None = None, index: int | None = None,
             latent: Sequence[float] | None = None, modulations: str | Path | None = None, split: str | None = None,
             encoding: str | None = None, dim: int | None = None, sigma: float | None = None, width: int | None = None,
             layers: int | None = None, convention: str = "file") -> SirenField:  # fmt: skip
        """Read a network that inrbridge or another code base wrote.

        Foreign files do not tell how to evaluate them. Their dialect is found by the names of the tensors, and what
        else is not in the file is taken from the dialect and listed in the field's `assumed`.

        Args:
            dialect: name of the writer, see `inrbridge_siren.dialects.DIALECTS`.
            omega_0, hidden_omega: frequencies of the first and the other sine layers.
            activation: of the hidden layers: "sine", "relu", "sigmoid", "tanh", "selu", "softplus" or "elu".
            final: activation of the readout: "identity", "sigmoid", "tanh", "clamp" (to [0, 1]) or "sine".
            low, high: corners of the domain, one number for all coordinates or one for each.
            size: rows and columns of the picture that COIN was trained on.
            index: which network of a file that holds several, or which latent vector of `modulations`.
            latent: the latent vector of a modulated network.
            modulations, split: file of latent vectors of functa, and which part of it, "train" or "test".
            encoding: what stands before the first layer without leaving a tensor: "none", "nerf" or "positional".
            dim, sigma: coordinates of such an encoding, and the ratio of its highest to its lowest frequency.
            width, layers: units and number of the hidden layers of a file of inr2vec.
            convention: "file" keeps the writer's order of coordinates and range of values; "image" turns them
                into rows before columns and values in [0, 1].
        """
        from inrbridge import Probe, options, read_native
        from inrbridge_siren.foreign import open_foreign
        from inrbridge_siren.source import Told

        told = Told(omega_0, hidden_omega, activation, final, low, high, size, index, latent, modulations, split, encoding, dim,
                    sigma, width, layers, convention)  # fmt: skip
        if not Probe(path).native:
            return open_foreign(path, dialect, told)
        return read_native(path, self, [*options.changed_options(told), *(["dialect"] if dialect else [])])

    def count(self, probe: Probe) -> int:
        if probe.native:
            return 1
        from inrbridge_siren.foreign import count_networks

        return count_networks(probe)

    def open_all(self, path: Path, options: Mapping[str, object]) -> Iterator[SirenField]:
        from inrbridge import Probe
        from inrbridge_siren.foreign import open_all_foreign
        from inrbridge_siren.source import Told

        count = self.count(Probe(path))
        if count == 1:
            return iter([self.open(path, **options)])
        told = {name: value for name, value in options.items() if name != "dialect"}
        return open_all_foreign(path, options.get("dialect"), Told(**told), count)

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None,
              width: int | Sequence[int] = 64, layers: int = 3, omega_0: float = 30.0, hidden_omega: float = 30.0,
              activation: str = "sine", final: str = "identity", normalize: bool = True, encoding: str = "none",
              features: int = 32, angle: float = 6.283185307179586, raw: bool = False, axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float]] | None = None) -> SirenField:  # fmt: skip
        """Return a fresh trainable network; `layers` counts the hidden layers, each of `width` units.

        `encoding` "waves" puts cos and sin of `features` random frequencies before the first layer, after the coordinates
        themselves where `raw`; "bumps" puts radial functions there.
        """
        import torch

        from inrbridge_siren.field import SirenField

        hidden = [width] * layers if isinstance(width, int) else list(width)
        field = SirenField(domain, channels, hidden, omega_0=omega_0, hidden_omega=hidden_omega, activation=activation,
                           final=final, normalize=normalize, encoding=encoding, features=features, angle=angle, raw=raw,
                           axes=axes, channel_ranges=channel_ranges)  # fmt: skip
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 500, "lr": 2e-3}


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [SirenFormat()]
