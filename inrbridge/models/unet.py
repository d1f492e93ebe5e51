"""Floor 6: the continuous twin of a U-Net (Ronneberger et al. 2015), on nested discretizations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from inrbridge.domains import Domain
from inrbridge.models.dense import DenseNet
from inrbridge.models.layers import Convolutions, normalization, require_counts, require_lists
from inrbridge.nn import Activation, Sampled, Sequential, Upsample, concat


class UNet(DenseNet):
    """An encoder of strided convolutions, a decoder that goes back up, and a skip connection on each scale.

    The scales are nested: each is every second point along the axes of a grid, or the prefix of a sequence, so the decoder
    is back on the very points that the encoder left and a skip connection joins values of the same places
    (Wang & Golland 2023, section 4.1). On a grid it is the discrete net, weight for weight (with "nearest"); a side that
    the strides do not divide is rounded up, and its last block is cut off on the way back.

    Args:
        widths: channels on each scale, from the finest to the coarsest.
        convs: convolutions on each scale, on the way down and on the way up.
        stride: ratio of neighbouring scales along each axis.
        upsample: "nearest" or "linear" (`nn.Upsample`).
        resolution: cells along each axis of the grid that the kernel nodes are taken from.
        kernel_size: nodes along each axis. kernel: "reconstruct" (nodes, moving least squares), or a basis under the integral:
            "spline", "polynomial" or "gaussian". order, neighbors: of the reconstruction.
        border: what a kernel sees beyond the domain: "zeros", "reflect", "circular", "renormalize" (`stencils.borders`).
        norm: "batch", "instance", "layer" or "none".
        head: width of the hidden layer of the pointwise head; 0: it is linear. skip: show it the input field.
        points: size of the net's own discretization; None: one point for each grid cell.
        resample: "none": the layers live on the points that are given; "lattice", "grid", "sobol" or "halton": on the net's own,
            of this sampler, onto which samples are read first (`INRNet.resampling`).
    """

    name = "unet"

    def __init__(self, domain: Domain, in_channels: int, classes: int, *, widths: Sequence[int] = (16, 32, 64), convs: int = 2,
                 stride: int = 2, upsample: str = "nearest", resolution: int = 32, kernel_size: int = 3,
                 kernel: str = "reconstruct", order: int = 2, neighbors: int | None = None, border: str = "zeros",
                 norm: str = "batch", activation: str = "relu", head: int = 0, skip: bool = False, points: int | None = None,
                 resample: str = "none", generator: torch.Generator | None = None):  # fmt: skip
        require_lists(self.name, widths=widths)
        require_counts(self.name, convs=convs, stride=stride, resolution=resolution, kernel_size=kernel_size,
                       neighbors=neighbors, points=points)  # fmt: skip
        options = {"widths": list(widths), "convs": convs, "stride": stride, "upsample": upsample, "resolution": resolution,
                   "kernel_size": kernel_size, "kernel": kernel, "order": order, "neighbors": neighbors, "border": border,
                   "norm": norm, "activation": activation, "head": head, "skip": skip, "points": points,
                   "resample": resample}  # fmt: skip
        super().__init__(domain, in_channels, classes, points or resolution**domain.intrinsic_dim, options, width=widths[0],
                         head=head, skip=skip, generator=generator)  # fmt: skip
        self.resample = self.resampling(resample, order, neighbors)
        convolve = Convolutions(domain, resolution, kernel_size, kernel, order, neighbors, border, generator)
        convolve.require_kept_domain(self.name)

        def block(inputs: int, outputs: int, times: int, stride: int = 1) -> Sequential:
            layers: list[nn.Module] = []
            for i in range(convs):
                first = {"times": times // stride, "stride": stride} if i == 0 else {"times": times}
                layers += [convolve(outputs if i else inputs, outputs, bias=norm == "none", **first),
                           *normalization(norm, outputs), Activation(activation)]  # fmt: skip
            return Sequential(*layers)

        scales = list(enumerate(itertools.pairwise(widths)))
        self.require_points(stride ** (len(scales) * domain.intrinsic_dim))
        self.down = nn.ModuleList([block(in_channels, widths[0], 1)])
        self.down.extend(block(fine, coarse, stride ** (i + 1), stride) for i, (fine, coarse) in scales)
        self.upsample = Upsample(stride, upsample)
        self.up = nn.ModuleList(block(fine + coarse, fine, stride**i) for i, (fine, coarse) in reversed(scales))

    def features(self, sampled: Sampled) -> Sampled:
        """Return the features (b, n, widths[0]) on the points of the samples."""
        kept: list[Sampled] = []
        sampled = self.resample(sampled)
        for block in self.down:
            kept.append(block(kept[-1] if kept else sampled))
        current = kept.pop()
        for block in self.up:
            fine = kept.pop()
            current = block(concat(fine, self.upsample(current, fine.discretization)))
        return current
