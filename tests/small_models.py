"""Small sizes of every architecture, for tests that go through all of them."""

import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Domain
from inrbridge.models import INRNet, build_model
from inrbridge.nn import Sampled

CLASSIFIERS = {
    "convnet": {"widths": [4, 6], "strides": [1, 2], "resolution": 8},
    "resnet": {"widths": [4, 6], "blocks": [1, 1], "resolution": 8},
    "convnext": {"widths": [4, 6], "blocks": [1, 1], "strides": [1, 2], "kernel_size": 5, "layer_scale": 1.0, "resolution": 8},
    "transformer": {"width": 8, "depth": 2, "heads": 2, "hidden": 12, "patch": 4, "resolution": 8},
    "inr-net-2": {"widths": [4, 6], "half_width": [0.3, 0.6], "bins": 8, "hidden": [4], "head": 5, "points": 64},
    "inr-net-4": {"widths": [4, 6], "half_width": [0.3, 0.6, 0.6], "bins": 8, "hidden": [4], "head": 5, "points": 64},
}
DENSE = {
    "inr-net-3": {"widths": [4, 5, 6], "half_width": [0.3, 0.3, 0.3], "bins": 8, "hidden": [4], "points": 64},
    "inr-net-5": {"widths": [4, 6], "half_width": [0.3, 0.6], "bins": 8, "hidden": [4], "points": 64},
    "unet": {"widths": [4, 6], "convs": 1, "resolution": 8},
}
SMALL = {**CLASSIFIERS, **DENSE}


def small(name: str, generator: torch.Generator | None, domain: Domain, channels: int = 1, classes: int = 3, **options) -> INRNet:
    """Build a small net in evaluation mode; in 3-D the supports of MLP kernels are wider, for points are fewer there."""
    given = {**SMALL[name], **options}
    if "half_width" in given and domain.dim == 3:
        given["half_width"] = [2 * share for share in given["half_width"]]
    return build_model(name, domain, channels, classes, generator=generator, **given).eval()


def smooth(points: Discretization, channels: int = 1) -> Sampled:
    """Three smooth fields, of period 2 along each axis."""
    x = points.points
    waves = [torch.sin(torch.pi * (x.sum(-1, keepdim=True) + i)) + 0.5 * torch.cos(torch.pi * x[:, :1]) for i in range(3)]
    return Sampled(points, torch.stack(waves).repeat(1, 1, channels))


def values(net: INRNet, sampled: Sampled) -> torch.Tensor:
    """Output (b, k) of a net, or the values (b, n, k) of its output at the points of the samples."""
    out = net(sampled)
    return out.values if isinstance(out, Sampled) else out
