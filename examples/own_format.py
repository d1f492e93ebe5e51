"""Bring a format of your own: sums of Gaussian blobs. The two classes below are all of it.

Run: python own_format.py [FOLDER]        (default: a new temporary folder)
"""

import sys
import tempfile
from pathlib import Path

import torch

import inrbridge
from inrbridge import Box, Format, FunctionField, sampling


class BlobsField(torch.nn.Module):
    """f(x) = sum_k height_k exp(-(|x - center_k| / size_k)^2)."""

    def __init__(self, domain, channels, count, generator):
        super().__init__()
        self.domain, self.channels, self.architecture = domain, channels, {"count": count}
        self.centers = torch.nn.Parameter(domain.from_unit(torch.rand(count, domain.unit_dim, generator=generator)))
        self.log_sizes = torch.nn.Parameter(torch.full((count,), -1.5))
        self.heights = torch.nn.Parameter(0.1 * torch.randn(count, channels, generator=generator))

    def forward(self, coords):  # (..., d) -> (..., channels)
        distances = (coords.unsqueeze(-2) - self.centers) / self.log_sizes.exp().unsqueeze(-1)
        return torch.exp(-distances.square().sum(-1)) @ self.heights


class BlobsFormat(Format):
    api, name = 1, "blobs"

    def recognizes(self, probe):  # is this file one of ours? It is, if inrbridge wrote it for us
        return probe.native.get("format") == self.name

    def open(self, path):
        return inrbridge.read_native(path, self)

    def build(self, domain, channels, *, generator=None, count=40):
        return BlobsField(domain, channels, count, generator)


inrbridge.register(BlobsFormat())  # an installed plugin is found by itself, see: inrbridge new-plugin blobs

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="inrbridge-"))
box = Box.centered(2)
rings = FunctionField(lambda x: torch.cos(6 * x.norm(dim=-1, keepdim=True)), box, 1)  # a formula is a field, too

# It can be fitted, saved, recognized and opened ...
(fitted,) = inrbridge.fit([rings], "blobs", steps=200, lr=4e-2)
print(f"rings as {fitted.architecture['count']} blobs: {fitted.psnr:.1f} dB from the formula")
inrbridge.save_field(fitted, folder / "rings.safetensors")
print(f"rings.safetensors is recognized as: {inrbridge.identify(folder / 'rings.safetensors')}")
opened = inrbridge.open_field(folder / "rings.safetensors")

# ... and stands beside fields of other formats: a grid of samples, the formula itself.
(sampled,) = inrbridge.fit([torch.rand(8, 8, generator=torch.Generator().manual_seed(0))], "grid")
fields = inrbridge.stack([opened, sampled, rings])
points = sampling.lattice(box, 1024)
values = fields(points.points)
print(f"{len(fields)} fields of 3 kinds at {len(points)} points: values {tuple(values.shape)}")
print("their integrals:", [round(float(v), 4) for v in torch.einsum("n,bnc->bc", points.weights, values)])
for field, name in [(opened, "blobs"), (rings, "formula")]:
    print("drawn in", inrbridge.preview(field, folder / f"{name}.png", title=name))
