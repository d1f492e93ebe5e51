"""Look at a field in space in other ways: slices, a tilted plane, a stretched domain, derived channels.

Each view is a field again: it can be drawn, integrated, stacked, or be the input of a network.
Run: python views.py [FOLDER]        (default: a new temporary folder)
"""

import math
import sys
import tempfile
from pathlib import Path

import torch

from inrbridge import Box, FunctionField, integrate, preview, stack
from inrbridge.transforms import AffineField, ConcatChannels, MapChannels, SliceField, rescale


def ring(x: torch.Tensor) -> torch.Tensor:
    """Signed distance to a ring of radius 0.6 and thickness 0.25 around axis 2: negative inside."""
    around = x[..., :2].norm(dim=-1) - 0.6
    return (torch.hypot(around, x[..., 2]) - 0.25).unsqueeze(-1)


folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))
space, plane = Box.centered(3), Box.centered(2, 0.7)
field = FunctionField(ring, space, 1, ("sdf",))

# Planes along two axes: coordinates 0 and 1 are kept, 2 is held at some height.
low, middle = SliceField(field, (0, 1), at=[-0.2]), SliceField(field, (0, 1))

# A plane tilted by 30 degrees: point (u, v) of the plane is A (u, v) + t in space.
tilt = math.radians(30)
tilted = AffineField(field, plane, matrix=[[1, 0], [0, math.cos(tilt)], [0, math.sin(tilt)]], offset=[0, 0, 0])

# The middle slice, stretched onto another box; and minus its values as a second channel.
wide = rescale(middle, Box((0, 0), (1, 2)))
both = ConcatChannels([wide, MapChannels(wide, scale=[-1], offset=[0])], ["sdf", "depth"])

for name, view in [("space", field), ("low", low), ("middle", middle), ("tilted", tilted), ("both", both)]:
    print(f"{name:7} on {view.domain}, {view.channels} channel(s): {preview(view, folder / f'{name}.png', title=name)}")

# Views of one field agree where their planes meet, and views on one domain are evaluated together.
line = torch.stack([torch.linspace(-0.7, 0.7, 5), torch.zeros(5)], dim=-1)
print("on the common axis of the middle and the tilted plane:")
print("  middle", [round(float(v), 3) for v in middle(line)])
print("  tilted", [round(float(v), 3) for v in tilted(line)])
print(f"both slices in one stack: {tuple(stack([low, middle])(line).shape)}")
print(f"mean distance in space {float(integrate(field)) / space.measure:.4f}, "
      f"in the middle slice {float(integrate(middle)) / middle.domain.measure:.4f}")  # fmt: skip
