"""The code bases whose files open here, found by the names of their arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """How one code base writes a field.

    `marks` are groups of names, one group of which is there entirely. `reader` is "module:function" in this package.
    """

    name: str
    source: str
    reader: str
    marks: tuple[tuple[str, ...], ...]

    def fits(self, names: Iterable[str]) -> bool:
        """Say whether a file with arrays of these names is of this code base."""
        found = set(names)
        return any(found.issuperset(group) for group in self.marks)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "svox2", "github.com/sxyu/svox2: Plenoxels", "svox2:read_svox2",
            (("links", "density_data", "sh_data"), ("links", "data")),
        ),
        Dialect(
            "svox-compressed", "github.com/sxyu/plenoctree: compressed octrees", "svox:read_compressed",
            (("child", "offset", "sigma", "quant_colors", "quant_map"),),
        ),
        Dialect(
            "svox", "github.com/sxyu/svox: PlenOctrees", "svox:read_svox",
            (("child", "invradius3", "offset", "data"), ("child", "invradius", "offset", "data")),
        ),
    )
}  # fmt: skip


def detect(names: Iterable[str]) -> Dialect | None:
    """Return the first dialect that fits.

    >>> detect(["links", "density_data", "sh_data", "radius"]).name
    'svox2'
    """
    found = set(names)
    return next((dialect for dialect in DIALECTS.values() if dialect.fits(found)), None)
