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
    from inrbridge_fourier.filters import FilterField

__version__ = "0.1.0"
_TURN = 6.283185307179586


class FourierFormat(Format):
    """Opens, builds and saves Fourier-feature networks."""

    api, name = 1, "fourier"
    suffixes = (".safetensors", ".pt", ".pth", ".ckpt", ".npy", ".pkl")
    description = "MLP on random Fourier features (Tancik et al. 2020), multiplicative filter network"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_fourier.dialects import detect

        return detect(probe.tensors) is not None

    def open(self, path: Path, *, dialect: str | None = None, activation: str | None = None, beta: float | None = None,
             final: str | None = None, order: str | None = None, raw: str | None = None, octaves: Sequence[float] | None = None,
             encoding: str | None = None, sigma: float | None = None, dim: int | None = None, reuse: bool | None = None,
             level: int | None = None, low: float | Sequence[float] | None = None, high: float | Sequence[float] | None = None,
             convention: str = "file") -> FourierField | FilterField:  # fmt: skip
        """Read a network that inrbridge or another code base wrote.

        What a foreign file does not tell is taken from its dialect and listed in the field's `assumed`.

        Args:
            dialect: name of the writer, see `inrbridge_fourier.dialects.DIALECTS`.
            activation, beta: between the layers ("relu", "softplus", ...), and the sharpness of "softplus".
            final: activation of the readout: "identity", "sigmoid" or "tanh".
            order: of the features: "cos-sin" or "sin-cos".
            raw: where coordinates among the features are: "first" or "last".
            octaves: first and last exponent of nerfstudio's octaves.
            encoding, sigma, dim: "positional" for a network behind jmclong's PositionalEncoding, which stores nothing: its
                ratio of frequencies, and the number of coordinates.
            reuse, level: of a multiplicative filter network: whether its filters serve several levels, as BACON's shapes have
                it, and the level at which the value is taken, the last one by default.
            low, high: corners of the domain, one number for all coordinates or one for each.
            convention: "file" keeps the writer's order of coordinates and range of values; "image" turns them
                into rows before columns and values in [0, 1].
        """
        from inrbridge import Probe, options, read_native
        from inrbridge_fourier.foreign import open_foreign
        from inrbridge_fourier.source import Told

        told = Told(activation, beta, final, order, raw, octaves, encoding, sigma, dim, reuse, level, low, high, convention)
        if not Probe(path).native:
            return open_foreign(path, dialect, told)
        return read_native(path, self, [*options.changed_options(told), *(["dialect"] if dialect else [])])

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None, network: str = "mlp",
              width: int | Sequence[int] = 64, layers: int = 3, features: int = 64, sigma: float | None = 5.0,
              angle: float = _TURN, activation: str = "relu", beta: float = 1.0, final: str = "identity", raw: bool = False,
              skips: Sequence[int] = (), normalize: bool = True, axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float]] | None = None) -> FourierField | FilterField:  # fmt: skip
        """Return a fresh trainable network: `layers` ReLU layers of `width` units on `features` random frequencies.

        `sigma` is the deviation of the frequencies, in cycles across the domain: about a fifth of the samples
        per side resolves an image without inventing values between its pixels. `network` "filters" is a multiplicative
        filter network instead, of `layers` products of `width` sines.
        """
        import torch

        from inrbridge import errors
        from inrbridge_fourier.field import FourierField
        from inrbridge_fourier.filters import FilterField

        meaning = {"sigma": sigma, "final": final, "normalize": normalize, "axes": axes, "channel_ranges": channel_ranges}
        if network == "filters":
            field = FilterField(domain, channels, width, layers, **meaning)
        elif network == "mlp":
            hidden = [width] * layers if isinstance(width, int) else list(width)
            field = FourierField(domain, channels, features, hidden, angle=angle, activation=activation, beta=beta, raw=raw,
                                 skips=skips, **meaning)  # fmt: skip
        else:
            raise errors.unknown_name("network", network, ("mlp", "filters"))
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 500, "lr": 5e-3}


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [FourierFormat()]
