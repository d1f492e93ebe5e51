"""Instant-NGP as an inrbridge format: a multiresolution hash grid read by small networks (Müller et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inrbridge import Format, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from inrbridge import Domain, Probe
    from inrbridge_ngp.field import NgpField

__version__ = "0.1.0"


class NgpFormat(Format):
    """Opens, builds and saves hash grids with their networks."""

    api, name = 1, "ngp"
    suffixes = (".safetensors", ".ingp", ".msgpack", ".pt", ".pth", ".ckpt", ".tar")
    description = "multiresolution hash grid and small networks (Müller et al. 2022)"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_ngp.dialects import detect

        return detect(probe) is not None

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None, levels: int = 8,
              features: int = 2, log2_table: int = 12, base: int = 4, finest: int | None = None, growth: float | None = None,
              grid: str = "hash", hash: str = "coherent-prime", interpolation: str = "linear", layout: str = "tcnn",
              frequencies: int = 0, planes: Sequence[int] | None = None, raw: bool = False, width: int = 32, layers: int = 1,
              activation: str = "relu", final: str = "none", bias: str = "none", head: str | None = None, geometry: int = 16,
              harmonics: int = 4, colour_width: int | None = None, colour_layers: int = 2, colour_bias: str = "none",
              convention: Mapping[str, object] | None = None, axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float] | None] | None = None, up: str | None = None,
              evaluator: str = "auto") -> NgpField:  # fmt: skip
        """Return a fresh trainable field.

        Args:
            levels, features: levels of the grid, and numbers in each row of it; 0 levels leave the grid out.
            log2_table: binary logarithm of the most rows of a level.
            base, finest: lattice points along an axis of the first and the last level; `growth`, the factor from level to
                level, may be given instead of `finest`.
            grid, hash, interpolation, layout: "hash", "dense" or "tiled"; "coherent-prime", "prime" or "reversed-prime";
                "linear", "smoothstep" (once differentiable) or "nearest"; the code base whose rows they are.
            width, layers: units and number of the hidden layers of the base network.
            head: "values", "medium" (colours and density) or "radiance"; by default radiance on a product with directions.
            geometry, harmonics, colour_width, colour_layers: of radiance: outputs of the base network, degrees of the
                directions' harmonics, and the colour network.
            frequencies, planes, raw, activation, final, bias, colour_bias, convention: as other code bases have them.
            axes, channel_ranges, up: what coordinates and values mean, and the axis that points upward, for pictures.
            evaluator: "torch", "tinycudann" or "auto".
        """
        import torch

        from inrbridge import Product, Sphere, errors, options
        from inrbridge_ngp.convention import Convention
        from inrbridge_ngp.cuda import EVALUATORS
        from inrbridge_ngp.field import NgpField
        from inrbridge_ngp.levels import GridSpec, growth_between

        if head is None:
            has_directions = isinstance(domain, Product) and domain.b == Sphere() and domain.a.dim == 3
            head = "radiance" if has_directions and channels == 4 else "values"
        dim = domain.a.dim if head == "radiance" and isinstance(domain, Product) else domain.dim
        if finest is not None and growth is not None:
            raise errors.ConfigError(f"Got finest = {finest} and growth = {growth} of a grid, expected one of them.")
        if evaluator not in EVALUATORS:
            raise errors.unknown_name("evaluator", evaluator, EVALUATORS)
        spec = None
        if levels:
            finest = FINEST.get(dim, 16) if finest is None else finest
            if growth is None and not (base >= 1 and finest >= 1):
                raise errors.ConfigError(f"Got base = {base} and finest = {finest} of a grid, expected at least 1.")
            growth = growth_between(base, finest, levels) if growth is None else growth
            spec = GridSpec(dim, levels, features, log2_table, base, growth, grid, hash, interpolation, layout)
        field = NgpField(
            domain, channels, grid=spec, frequencies=frequencies, planes=planes, raw=raw, width=width, layers=layers,
            activation=activation, final=final, bias=bias, head=head, geometry=geometry, harmonics=harmonics,
            colour_width=width if colour_width is None else colour_width, colour_layers=colour_layers, colour_bias=colour_bias,
            convention=options.from_options(Convention, convention), axes=axes, channel_ranges=channel_ranges, up=up,
        )  # fmt: skip
        field.evaluator = evaluator
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def open(self, path: Path, *, dialect: str | None = None, low: float | Sequence[float] | None = None,
             high: float | Sequence[float] | None = None, extent: float | None = None, frame: str = "file",
             convention: str = "file", contraction: str | None = None, density_scale: float | None = None,
             appearance: str | None = None, levels: int | None = None, features: int | None = None,
             log2_table: int | None = None, base: int | None = None, finest: float | None = None, growth: float | None = None,
             size: int | Sequence[int] | None = None, extra: Sequence[float] | None = None, activation: str | None = None,
             dim: int | None = None, channels: int | None = None, evaluator: str = "auto") -> NgpField:  # fmt: skip
        """Read a field that inrbridge or another code base wrote.

        Foreign files do not tell all that it takes to evaluate them. Their dialect is found by the names of the tensors, and
        what else is neither in the file nor in the configuration beside it is taken from the dialect and listed in the
        field's `assumed`. The number of parameters is checked first. Each dialect takes those options that it needs.

        Args:
            dialect: name of the writer, see `inrbridge_ngp.dialects.DIALECTS`.
            low, high: corners of the scene's box.
            extent: unbounded space is cut at so many times the scene's box.
            frame: "file" (or "ngp") keeps the writer's coordinates; "world" gives those of the cameras' file, where the
                snapshot, or dataparser_transforms.json beside the file, tells them.
            convention: "image" turns the coordinates of a picture into rows before columns.
            contraction: of unbounded space: "none", "sphere" or "cube".
            density_scale: factor of the density; nerfstudio's average_init_density.
            appearance: which appearance nerfstudio's colours have: "mean", "zeros" or the number of an image.
            levels, features, log2_table, base, finest, growth: of the grid, as in `build`; `finest` of instant-ngp is that
                of the unit cube.
            size: height and width of the picture that an instant-ngp snapshot was trained on.
            extra: values of a snapshot's extra inputs: (direction of light + 1) / 2, then the latents of an image.
            activation: of nerf2vec's and GMNeRF's networks.
            dim, channels: inputs and outputs of a vector of tiny-cuda-nn.
            evaluator: "torch", "tinycudann" or "auto".
        """
        from inrbridge import Probe, errors, read_native
        from inrbridge_ngp.cuda import EVALUATORS

        if evaluator not in EVALUATORS:
            raise errors.unknown_name("evaluator", evaluator, EVALUATORS)
        told = {"dialect": dialect, "low": low, "high": high, "extent": extent, "contraction": contraction,
                "density_scale": density_scale, "appearance": appearance, "levels": levels, "features": features,
                "log2_table": log2_table, "base": base, "finest": finest, "growth": growth, "size": size,
                "extra": extra, "activation": activation, "dim": dim, "channels": channels}  # fmt: skip
        told |= {name: value for name, value in (("frame", frame), ("convention", convention)) if value != "file"}
        given = {name: value for name, value in told.items() if value is not None}
        if Probe(path).native:
            field = read_native(path, self, given)
        else:
            from inrbridge_ngp.foreign import open_foreign
            from inrbridge_ngp.source import Told

            given.pop("dialect", None)
            field = open_foreign(path, dialect, Told(**given))
        field.evaluator = evaluator
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 400, "lr": 1e-2}


FINEST = {1: 256, 2: 64, 3: 64, 4: 32}  # lattice points along an axis of the last level, by dimension


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [NgpFormat()]
