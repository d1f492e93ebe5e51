"""A tiny format, and plugins installed as bare `*.dist-info` folders: discovery is tested without pip."""

import importlib
import sys
from pathlib import Path

import torch

from inrbridge import Box, Format, Probe, read_native


class RippleField(torch.nn.Module):
    """f(x) = sum_k amplitude_k sin(frequency_k . x), for each channel."""

    format = "ripple"

    def __init__(self, domain, channels, waves, generator):
        super().__init__()
        self.domain, self.channels, self.waves = domain, channels, waves
        self.channel_names = tuple(f"wave{i}" for i in range(channels))
        self.amplitude = torch.nn.Parameter(torch.randn(waves, channels, generator=generator))
        self.frequency = torch.nn.Parameter(torch.randn(waves, domain.dim, generator=generator))

    @property
    def architecture(self):
        return {"waves": self.waves}

    def forward(self, coords):  # (..., d) -> (..., c)
        return torch.sin(coords @ self.frequency.to(coords).mT) @ self.amplitude.to(coords)


class RippleFormat(Format):
    """Native files, and bare safetensors files that hold `frequency` and `amplitude`."""

    api, name = 1, "ripple"
    suffixes = (".safetensors",)
    description = "sums of sine waves"

    def recognizes(self, probe: Probe) -> bool:
        return "frequency" in probe.tensors

    def open(self, path: Path, *, gain: float = 1.0):
        field = read_native(path, self)
        with torch.no_grad():
            field.amplitude *= gain
        return field

    def build(self, domain, channels, *, generator=None, waves: int = 4):
        return RippleField(domain, channels, waves, generator or torch.Generator().manual_seed(0))


def ripple(channels: int = 2, dim: int = 2, seed: int = 0, **options) -> RippleField:
    """Return a small field of the fake format."""
    return RippleFormat().build(Box.centered(dim), channels, generator=torch.Generator().manual_seed(seed), **options)


PLUGIN = """
from inrbridge import Format, hookimpl

class Thing(Format):
    api, name = 1, "{name}"
    suffixes = (".{name}",)

    def recognizes(self, probe):
        return probe.path.suffix == ".{name}"

    def open(self, path):
        raise KeyError("weights")

@hookimpl
def inrbridge_formats():
    return [Thing()]
"""


def install(folder: Path, name: str, source: str | None = None, *, distribution: str | None = None, version: str = "1.0",
            module: str | None = None, entries: str | None = None) -> str:  # fmt: skip
    """Put a plugin module and its metadata into a folder; return the module's name."""
    distribution = distribution or f"inrbridge-{name}"
    module = module or f"fake_{distribution.replace('-', '_')}"
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(PLUGIN.format(name=name) if source is None else source)
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entries if entries is not None else f"[inrbridge]\n{name} = {module}\n")
    sys.modules.pop(module, None)
    importlib.invalidate_caches()
    return module
