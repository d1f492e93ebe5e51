"""NeRF as an inrbridge format: a multilayer perceptron on positional encodings (Mildenhall et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inrbridge import Format, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from inrbridge import Domain, Probe
    from inrbridge_nerf.field import NerfField

__version__ = "0.1.0"


class NerfFormat(Format):
    """Opens, builds and saves perceptrons on positional encodings."""

    api, name = 1, "nerf"
    suffixes = (".safetensors", ".tar", ".npy", ".ckpt", ".pt", ".pth")
    description = "MLP on positional encodings, radiance or any values (Mildenhall et al. 2020)"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_nerf.dialects import find_networks

        return bool(find_networks(probe))

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None, width: int = 64,
              layers: int = 4, skips: Sequence[int] | None = None, frequencies: int | None = None,
              direction_frequencies: int = 4, activation: str = "relu", first_active: bool = True, final: str = "none",
              head: str | None = None, feature: str = "linear", feature_width: int | None = None,
              branch: Sequence[int] | None = None, convention: Mapping[str, object] | None = None,
              axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float] | None] | None = None) -> NerfField:  # fmt: skip
        """Return a fresh trainable field.

        Args:
            width, layers: of the trunk.
            skips: numbers of the layers that read the encoding once more; default the middle one of six layers or more.
            frequencies, direction_frequencies: octaves of the positional encodings.
            activation: "relu", "softplus" or "tanh"; `first_active=False` leaves it out after the first layer.
            final: "none", "sigmoid" or "tanh" of a field of values.
            head: "values", "medium" (colours and density) or "radiance"; by default radiance on a product with directions.
            feature, feature_width: of radiance: the layer between trunk and branch is "linear", "active" or "none".
            branch: widths of the layers that see the direction; default one of half the width.
            convention: how other code bases do it, see `inrbridge_nerf.convention.Convention`.
        """
        import torch

        from inrbridge import Product, Sphere, options
        from inrbridge_nerf.convention import Convention
        from inrbridge_nerf.field import NerfField

        has_directions = isinstance(domain, Product) and domain.b == Sphere() and domain.a.dim == 3
        if head is None:
            head = "radiance" if has_directions and channels == 4 else "values"
        if convention is None and head != "values":
            bounds = (domain.a if has_directions and head == "radiance" else domain).bounds
            side = max(b - a for a, b in zip(*bounds, strict=True))
            convention = {"density_scale": OPTICAL_DEPTH / side, "density_shift": THIN}
        if skips is None:
            skips = (layers // 2,) if isinstance(layers, int) and layers >= 6 else ()
        field = NerfField(
            domain, channels, width=width, layers=layers, skips=skips,
            frequencies=FREQUENCIES[head == "values"] if frequencies is None else frequencies,
            direction_frequencies=direction_frequencies, activation=activation, first_active=first_active, final=final, head=head,
            feature=feature, feature_width=width if feature_width is None else feature_width,
            branch=[max(1, width // 2)] if branch is None else branch, axes=axes,
            channel_ranges=channel_ranges, convention=options.from_options(Convention, convention),
        )  # fmt: skip
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def open(self, path: Path, *, dialect: str | None = None, network: str | None = None,
             low: float | Sequence[float] | None = None, high: float | Sequence[float] | None = None, space: str | None = None,
             frame: str | None = None, density: str | None = None, colour: str | None = None) -> NerfField:  # fmt: skip
        """Read a field that inrbridge or another code base wrote.

        Foreign files do not tell all that it takes to evaluate them. Their dialect is found by the names of the tensors, the
        architecture by their shapes, and what else is neither in the file nor in the configuration beside it is taken from
        the dialect and listed in the field's `assumed`. Shapes are checked first.

        Args:
            dialect: name of the writer, see `inrbridge_nerf.dialects.DIALECTS`.
            network: "fine" or "coarse"; default the fine one where it is there.
            low, high: corners of the scene's box.
            space: "world", or "ndc": positions are normalized device coordinates of a forward-facing scene.
            frame: "file" keeps the writer's coordinates; "world" gives those of the cameras' file, where
                dataparser_transforms.json beside the file tells them.
            density, colour: what follows the last layers: "relu", "softplus", "sigmoid" or "none"; "sigmoid" or "none".
        """
        from inrbridge import Probe, read_native

        told = {"dialect": dialect, "network": network, "low": low, "high": high, "space": space, "frame": frame,
                "density": density, "colour": colour}  # fmt: skip
        if not Probe(path).native:
            from inrbridge_nerf.foreign import Told, open_foreign

            return open_foreign(path, Told(**told))
        return read_native(path, self, [name for name, value in told.items() if value is not None])

    def fit_defaults(self) -> dict:
        return {"steps": 500, "lr": 5e-3}


FREQUENCIES = (8, 5)  # of radiance, of values
OPTICAL_DEPTH = 60.0  # across the box, where the network's density is 1
THIN = -4.0  # added to the network's output: fresh fields are a mist of optical depth 1, through which all pixels teach


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [NerfFormat()]
