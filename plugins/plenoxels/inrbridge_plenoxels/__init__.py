"""Plenoxel grids and PlenOctrees as an inrbridge format (Fridovich-Keil et al. 2022; Yu et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inrbridge import Format, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from inrbridge import Domain, Probe
    from inrbridge_plenoxels.field import PlenoxelField

__version__ = "0.1.0"


class PlenoxelsFormat(Format):
    """Opens, builds and saves fields that are tables of numbers over a lattice or an octree."""

    api, name = 1, "plenoxels"
    suffixes = (".safetensors", ".npz")
    description = "lattice or octree of densities and spherical harmonics (Fridovich-Keil et al. 2022; Yu et al. 2021)"

    def recognizes(self, probe: Probe) -> bool:
        if "format" in probe.native:
            return probe.native["format"] == self.name
        from inrbridge_plenoxels.dialects import detect

        return detect(probe.tensors) is not None

    def build(self, domain: Domain, channels: int, *, generator: torch.Generator | None = None,
              resolution: int | Sequence[int] | None = None, rows: int | None = None, nodes: int | None = None,
              branching: int = 2, levels: int = 1, head: str | None = None, basis: str = "harmonics", harmonics: int = 2,
              components: int | None = None, side: int = 16, octaves: int = 4, width: int = 32, density: str = "softplus",
              density_scale: float | None = None, colour: str = "sigmoid", padding: float = 0.0,
              axes: Sequence[str] | None = None,
              channel_ranges: Sequence[Sequence[float] | None] | None = None) -> PlenoxelField:  # fmt: skip
        """Return a fresh trainable field.

        Args:
            resolution: lattice points along each axis, one number for all or one for each; by default 256, 64, 24 and 8 in
                1 to 4 dimensions, and 48 for a field that is rendered.
            rows: lattice points that have values, of a lattice that is empty elsewhere; default all.
            nodes, branching, levels: of an octree instead of a lattice: nodes, cells of a node along an axis, depth.
            head: "values", "medium" (colours and density in space) or "radiance"; by default radiance on a product with
                directions.
            basis: of radiance, functions of the direction: "harmonics", "texture", "network" or "gaussians".
            harmonics: degrees of the spherical harmonics, 1 to 8.
            components, side, octaves, width: of the other bases: their number; points along a side of the texture; octaves that
                the network reads, and the width of its layers.
            density: "softplus" or "relu".
            density_scale: factor of the density; by default 1 over the side of a cell, so that a cell's optical depth is learnt.
            colour: "sigmoid", or "relu", which is max(0, x + 1/2).
            padding: colours c become c (1 + 2 padding) - padding.
        """
        import torch

        from inrbridge import Box, Product, Sphere, errors
        from inrbridge_plenoxels.basis import Basis
        from inrbridge_plenoxels.field import PlenoxelField
        from inrbridge_plenoxels.lattice import Lattice
        from inrbridge_plenoxels.octree import Octree

        if head is None:
            has_directions = isinstance(domain, Product) and domain.b == Sphere() and domain.a.dim == 3
            head = "radiance" if has_directions and channels == 4 else "values"
        places = domain.a if head == "radiance" and isinstance(domain, Product) else domain
        if not isinstance(places, Box):
            raise errors.ConfigError(f"Got {domain}, expected a Box, or for radiance Product(Box, Sphere()).")
        if nodes is not None and (resolution is not None or rows is not None):
            raise errors.ConfigError("Got nodes of an octree and the resolution or rows of a lattice, expected one of the two.")
        if nodes is not None:
            cells = Octree(nodes, branching, levels)
        else:
            cells = Lattice.of(default_resolution(head, places.dim) if resolution is None else resolution, places.dim, rows)
        functions = None
        if head == "radiance":
            count = harmonics**2 if basis == "harmonics" else components or 9
            functions = Basis(basis, count, side=side, octaves=octaves, width=width)
        if density_scale is None:
            counts = cells.resolution if isinstance(cells, Lattice) else (branching**levels,) * 3
            density_scale = max(n / s for n, s in zip(counts, places.size, strict=False))
        field = PlenoxelField(
            domain, channels, cells=cells, head=head, basis=functions, density=density, density_scale=density_scale,
            colour=colour, padding=padding, axes=axes, channel_ranges=channel_ranges,
        )  # fmt: skip
        field.draw(generator if generator is not None else torch.Generator().manual_seed(0))
        return field

    def open(self, path: Path, *, dialect: str | None = None, padding: float | None = None) -> PlenoxelField:
        """Read a field that inrbridge or another code base wrote.

        The dialect of a foreign file is found by the names of its arrays; what is assumed stands in the field's `assumed`.

        Args:
            dialect: name of the writer, see `inrbridge_plenoxels.dialects.DIALECTS`.
            padding: svox's rgb_padding, which its files do not tell: plenoctree trains with 0.001.
        """
        from inrbridge import Probe, read_native

        if not Probe(path).native:
            from inrbridge_plenoxels.foreign import open_foreign

            return open_foreign(path, dialect, padding)
        given = [name for name, value in (("dialect", dialect), ("padding", padding)) if value is not None]
        field = read_native(path, self, given)
        field.cells.check(field.state_dict())
        return field

    def fit_defaults(self) -> dict:
        return {"steps": 300, "lr": 2e-1}


def default_resolution(head: str, dim: int) -> int:
    """Return lattice points along an axis, few enough that some hundred steps of some thousand points reach them all."""
    return {1: 256, 2: 64, 3: 24}.get(dim, 8) if head == "values" else 48


@hookimpl
def inrbridge_formats() -> list[Format]:
    return [PlenoxelsFormat()]
