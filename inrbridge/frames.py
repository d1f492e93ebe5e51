"""Floor 3: the frame of a scene's files beside that of its network: a rotation, a shift and a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from inrbridge.domains import Box
from inrbridge.errors import CannotOpen

_ROUND = 1e-3  # how far a rotation may be from one


@dataclass(frozen=True)
class Motion:
    """A point q of the world is p = scale (rotation q + shift) of a network."""

    rotation: tuple[tuple[float, ...], ...]
    scale: float
    shift: tuple[float, ...]

    @classmethod
    def beside(cls, sidecar: Mapping[str, object]) -> Motion | None:
        """Read what nerfstudio's dataparser_transforms.json tells, as `Probe.sidecar` has it; None where it is not there.

        Raises:
            CannotOpen: it tells no rotation.
        """
        rows = [[sidecar.get(f"dataparser.transform.{i}.{j}") for j in range(4)] for i in range(3)]
        scale = sidecar.get("dataparser.scale")
        if not all(isinstance(v, int | float) for v in (scale, *rows[0], *rows[1], *rows[2])) or not scale > 0:
            return None
        rotation = torch.tensor([row[:3] for row in rows], dtype=torch.float64)
        if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=_ROUND):
            raise CannotOpen("the transform of dataparser_transforms.json is no rotation and shift.")
        return cls(tuple(tuple(row[:3]) for row in rows), float(scale), tuple(row[3] for row in rows))

    def box_in_world(self, box: Box) -> Box:
        """Return the smallest box of the world that holds a box of the network's coordinates."""
        shift = torch.tensor(self.shift, dtype=torch.float64)
        ends = [torch.tensor(corner, dtype=torch.float64) / self.scale - shift for corner in box.bounds]
        rotation = torch.tensor(self.rotation, dtype=torch.float64)
        corners = torch.cartesian_prod(*torch.stack(ends, 1)) @ rotation  # the inverse of a rotation is its transpose
        return Box([float(v) for v in corners.amin(0)], [float(v) for v in corners.amax(0)])
