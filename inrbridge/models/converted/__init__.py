"""Floor 6: discrete networks as INR-Nets: a traced program, and what its steps mean on points that are no pixels.

vocabulary  the words of torch that a program may use
arguments   what stands in its steps
program     the traced network as data
levels      the index spaces of its feature maps, placed in the domain, and their points
located     what flows through it off the grid
rules/      what each operation means on points
net         the nets
"""

from inrbridge.models.converted.arguments import encode
from inrbridge.models.converted.levels import Level, Placement, Places, Shape, checked_resolution
from inrbridge.models.converted.located import Located, NeedsGrid
from inrbridge.models.converted.net import Converted, ConvertedDenseNet, ConvertedNet
from inrbridge.models.converted.program import Program, Step

__all__ = [
    "Converted",
    "ConvertedDenseNet",
    "ConvertedNet",
    "Level",
    "Located",
    "NeedsGrid",
    "Placement",
    "Places",
    "Program",
    "Shape",
    "Step",
    "checked_resolution",
    "encode",
]  # fmt: skip
