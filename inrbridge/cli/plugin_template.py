"""Floor 9: the files of a new plugin, as `inrbridge new-plugin` writes them; @name@, @Name@ and @dist@ are replaced."""

FILES = {
    "pyproject.toml": """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "inrbridge-@dist@"
version = "0.1.0"
description = "The @name@ format for inrbridge"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["inrbridge>=0.1,<0.2"]

[project.entry-points.inrbridge]
@name@ = "inrbridge_@name@"

[tool.hatch.build.targets.wheel]
include = ["inrbridge_@name@.py"]
""",
    "README.md": """# inrbridge-@dist@

The @name@ format for inrbridge.

    pip install -e . pytest
    pytest
    inrbridge check @name@
""",
    "inrbridge_@name@.py": '''"""The @name@ format. Put your own field in the place of this one, a sum of Gaussian bumps:

    f(x) = sum_i weight_i exp(-|x - center_i|^2 / width^2)
"""

import torch
from inrbridge import Format, hookimpl, read_native


class @Name@Field(torch.nn.Module):
    """A sum of `bumps` Gaussian bumps; coords (..., d) -> values (..., channels)."""

    format = "@name@"

    def __init__(self, domain, channels, bumps, width, generator):
        super().__init__()
        self.domain, self.channels, self.bumps, self.width = domain, channels, bumps, width
        centers = domain.from_unit(torch.rand(bumps, domain.unit_dim, generator=generator))
        self.centers = torch.nn.Parameter(centers)  # (bumps, d)
        self.weights = torch.nn.Parameter(torch.randn(bumps, channels, generator=generator))

    @property
    def architecture(self):  # the options of `build` that make this field anew
        return {"bumps": self.bumps, "width": self.width}

    def forward(self, coords):
        offsets = coords.unsqueeze(-2) - self.centers.to(coords.dtype)  # (..., bumps, d)
        heights = torch.exp(-offsets.square().sum(-1) / self.width**2)  # (..., bumps)
        return heights @ self.weights.to(coords.dtype)


class @Name@Format(Format):
    """Opens, builds and saves fields of Gaussian bumps."""

    api, name = 1, "@name@"
    suffixes = (".safetensors",)
    description = "sums of Gaussian bumps"

    def recognizes(self, probe):
        # for files of other programs, ask here for tensor names that only they have: probe.tensors, probe.scalars, ...
        return probe.native.get("format") == self.name

    def open(self, path):
        # for files of other programs, read them here: inrbridge.read_tensors(path) runs no code that is in a file
        return read_native(path, self)

    def build(self, domain, channels, *, generator=None, bumps=16, width=0.5):
        return @Name@Field(domain, channels, bumps, width, generator or torch.Generator().manual_seed(0))


@hookimpl
def inrbridge_formats():
    return [@Name@Format()]
''',
    "tests/test_@name@.py": '''"""The @name@ format obeys the laws of every format."""

from inrbridge.testing import FormatConformance
from inrbridge_@name@ import @Name@Format


class Test@Name@(FormatConformance):
    format = @Name@Format()
''',
}
