"""Write a plugin for a format of another program, register it, open a file, and ask it about every law.

Run: python write_a_plugin.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

import inrbridge
from inrbridge import Box, Format, errors
from inrbridge.testing import check_conformance

# 1. Another program writes planar ripples f(x) = sum_k a_k sin(w_k . x) as an npz file of two arrays, w (k, 2) and a (k,).


class RipplesField(torch.nn.Module):
    """The field: a callable with a domain and channels. A module with `architecture` can also be saved, stacked and packed."""

    format = "ripples"

    def __init__(self, domain, channels, count, generator):
        super().__init__()
        self.domain, self.channels, self.architecture = domain, channels, {"count": count}
        self.channel_names, self.assumed = ("gray",) * channels, ("domain = [-1, 1]^2 (the program's own; no file tells)",)
        self.w = torch.nn.Parameter(4 * torch.randn(count, domain.dim, generator=generator))
        self.a = torch.nn.Parameter(torch.randn(count, channels, generator=generator))

    def forward(self, coords):  # (..., d) -> (..., channels), in the dtype of the coordinates
        return torch.sin(coords @ self.w.to(coords).mT) @ self.a.to(coords)


class RipplesFormat(Format):
    """The format: which files are ours, and how one becomes a field."""

    api, name, suffixes = 1, "ripples", (".npz",)

    def recognizes(self, probe):  # by its names: no tensor is read
        return probe.native.get("format") == self.name or set(probe.tensors) == {"ripples_w", "ripples_a"}

    def open(self, path):
        if inrbridge.Probe(path).native:  # what inrbridge saved itself
            return inrbridge.read_native(path, self)
        tensors = inrbridge.read_tensors(path)  # runs no code of the file, and checks sizes first
        w, a = (tensors.get(name, torch.empty(0)) for name in ("ripples_w", "ripples_a"))
        if w.ndim != 2 or a.ndim != 1 or w.shape != (len(a), 2) or not (w.is_floating_point() and a.is_floating_point()):
            raise errors.CannotOpen(
                f"it holds w {tuple(w.shape)} and a {tuple(a.shape)}, expected (k, 2) and (k,) of real numbers."
            )
        field = self.build(Box.centered(2), 1, count=len(a))
        field.load_state_dict({"w": w, "a": a[:, None]})
        return field

    def build(self, domain, channels, *, generator=None, count=6):
        return RipplesField(domain, channels, count, generator or torch.Generator().manual_seed(0))

    def example(self, folder):  # a tiny file, for the laws
        path, field = Path(folder) / "ripples.npz", self.build(Box.centered(2), 1)
        np.savez(path, ripples_w=field.w.detach().numpy(), ripples_a=field.a.detach().numpy()[:, 0])
        return path


# 2. An installed plugin returns its formats from the hook `inrbridge_formats` (see: inrbridge new-plugin). Here it is registered.
inrbridge.register(RipplesFormat())
path = RipplesFormat().example(Path(tempfile.mkdtemp(prefix="inrbridge-")))

# 3. From now on the file opens like any other.
field = inrbridge.open_field(path)
print(f"{path.name} is recognized as {inrbridge.identify(path)}; integral {inrbridge.integrate(field, n=4096).item():.4f}")
print("\n".join(f"assumed: {text}" for text in field.assumed))

# 4. The laws, as `inrbridge check` and the pytest class FormatConformance ask them.
for result in check_conformance(RipplesFormat()):
    print(f"{result.law:24}{result.outcome:9}{result.reason[:60]}")
