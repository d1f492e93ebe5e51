"""Floor 5: normalization by integral statistics (Wang & Golland 2023, appendix C, eq. 128-130).

Means and variances are integrals under the quadrature weights, so that points which crowd somewhere do not pull them.
Momentum, eps (inside the square root), parameters and their names are those of the torch layers, which these equal where
all weights are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrbridge.errors import ConfigError, ShapeMismatch, unknown_name
from inrbridge.nn.channels import check_channels
from inrbridge.nn.processes import are_several, pooled
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.weights import has_equal_weights, promoted


class BatchNorm(nn.Module):
    """Normalize each channel by its integral over the domain, averaged over the minibatch (torch.nn.BatchNorm1d/2d/3d).

    Where several processes train together, the minibatch is that of all of them (torch.nn.SyncBatchNorm), each field
    weighing the same: the result does not depend on the number of processes.

    Args:
        channels: c.
        eps: added to the variance.
        momentum: share of the new statistics in the running ones; None: all steps weigh the same.
        affine: learn `weight` and `bias` (c,), the s_i and m_i of eq. (130).
        track_running_stats: keep `running_mean` and `running_var` (c,) for evaluation. The running variance is
            corrected by m / (m - 1); m = b / sum_j w_j^2 for normalized weights, which is b n where they are equal.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True):  # fmt: skip
        super().__init__()
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        _register_affine(self, channels, affine, affine)
        _register_statistics(self, channels, track_running_stats)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, self.channels, f"BatchNorm({self.channels})")
        return normalize_batch(sampled, self)

    def extra_repr(self):
        return f"{self.channels}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class InstanceNorm(nn.Module):
    """Normalize each channel of each field by its own integrals (torch.nn.InstanceNorm1d/2d/3d, the same defaults).

    Args: as of BatchNorm; running statistics average those of the fields.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = False,
                 track_running_stats: bool = False):  # fmt: skip
        super().__init__()
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        _register_affine(self, channels, affine, affine)
        _register_statistics(self, channels, track_running_stats)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, self.channels, f"InstanceNorm({self.channels})")
        return normalize_instances(sampled, self)

    def extra_repr(self):
        return f"{self.channels}, eps={self.eps}, affine={self.affine}, track_running_stats={self.track_running_stats}"


class GroupNorm(nn.Module):
    """Normalize groups of channels of each field by their integral over the domain (torch.nn.GroupNorm)."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if groups < 1 or channels % groups:
            raise ConfigError(
                f"Got {channels} channels in {groups} groups, expected a number of groups that divides the channels."
            )
        self.groups, self.channels, self.eps, self.affine = groups, channels, eps, affine
        _register_affine(self, channels, affine, affine)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, self.channels, f"GroupNorm({self.groups}, {self.channels})")
        return sampled.with_values(standardize(sampled, self.groups, self)[0])

    def extra_repr(self):
        return f"{self.groups}, {self.channels}, eps={self.eps}, affine={self.affine}"


class LayerNorm(nn.Module):
    """Normalize the channels of each point, or the whole of each field (torch.nn.LayerNorm).

    Args:
        channels: c.
        over: "channels": statistics of the c values of a point, as torch.nn.LayerNorm(c) on (..., c); "all": one mean and
            variance of a field, an integral over points and channels. `weight` and `bias` are (c,) in both, since a
            parameter for each point would tie the layer to one discretization.
    """

    def __init__(
        self, channels: int, over: str = "channels", eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ):
        super().__init__()
        if over not in ("channels", "all"):
            raise unknown_name("range of a LayerNorm", over, ("channels", "all"), ConfigError)
        self.channels, self.over, self.eps = channels, over, eps
        _register_affine(self, channels, elementwise_affine, elementwise_affine and bias)

    def forward(self, sampled: Sampled) -> Sampled:
        check_channels(sampled, self.channels, f"LayerNorm({self.channels})")
        if self.over == "channels":
            values = nn.functional.layer_norm(sampled.values, (self.channels,), self.weight, self.bias, self.eps)
            return sampled.with_values(values)
        return sampled.with_values(standardize(sampled, 1, self)[0])

    def extra_repr(self):
        return f"{self.channels}, over={self.over}, eps={self.eps}"


def normalize_batch(sampled: Sampled, layer: nn.Module) -> Sampled:
    """Apply a batch normalization, ours or torch's, to values (b, n, c): `layer` holds the parameters and running statistics."""
    b, n, c = sampled.values.shape
    uses_batch = layer.training or layer.running_mean is None
    is_shared = layer.training and are_several()
    if uses_batch and b * n < 2 and not is_shared:
        raise ShapeMismatch(f"Got {b} field at {n} point in BatchNorm, expected at least 2 values a channel in training.")
    momentum = _step(layer) if layer.training and layer.track_running_stats else 0.0
    if is_shared or (uses_batch and not has_equal_weights(sampled.discretization)):
        return sampled.with_values(_normalize_weighted_batch(sampled, layer, momentum, is_shared))
    # rows in the order in which they lie in memory: statistics do not care, and nothing is copied
    first = sampled.values.transpose(0, 1).is_contiguous()
    rows = sampled.values.transpose(0, 1) if first else sampled.values
    updated = (layer.running_mean, layer.running_var) if not uses_batch or layer.training else (None, None)
    flat = nn.functional.batch_norm(rows.reshape(b * n, c), *updated, layer.weight, layer.bias, uses_batch, momentum, layer.eps)
    out = flat.view(rows.shape)
    return sampled.with_values(out.transpose(0, 1) if first else out)


def _normalize_weighted_batch(sampled: Sampled, layer: nn.Module, momentum: float, is_shared: bool) -> Tensor:
    values, weights = promoted(sampled)
    mean = (weights @ values).mean(0)  # (c,)
    centred = values - mean
    variance = (weights @ centred**2).mean(0)
    count = len(values) / (weights**2).sum()
    if is_shared:
        mean, variance, count = pooled(mean, variance, len(values), count)
        centred = values - mean
    if layer.training and layer.track_running_stats:
        _track(layer, mean, variance * _correction(count), momentum)
    return _scale(centred, torch.rsqrt(variance + layer.eps), layer).to(sampled.values.dtype)


def normalize_instances(sampled: Sampled, layer: nn.Module) -> Sampled:
    """Apply an instance normalization, ours or torch's, to values (b, n, c)."""
    if layer.track_running_stats and not layer.training:
        return sampled.with_values(_scale(sampled.values - layer.running_mean, torch.rsqrt(layer.running_var + layer.eps), layer))
    if len(sampled.discretization) < 2:
        raise ShapeMismatch("Got 1 point in InstanceNorm, expected at least 2: one value has no variance.")
    values, mean, variance = standardize(sampled, sampled.channels, layer)
    if layer.track_running_stats:
        momentum = _step(layer)
        weights = promoted(sampled)[1]
        _track(layer, mean.mean(0), variance.mean(0) * _correction(1 / (weights**2).sum()), momentum)
    return sampled.with_values(values)


def standardize(sampled: Sampled, groups: int, layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by the integrals over each field and group: values (b, n, c), then means and variances (b, groups)."""
    values, weights = promoted(sampled)
    b, _, c = values.shape
    size = c // groups

    def integral(v: Tensor) -> Tensor:  # (b, n, c) -> (b, groups)
        return (weights @ v).view(b, groups, size).mean(2)

    def spread(v: Tensor) -> Tensor:  # (b, groups) -> (b, 1, c)
        return v.repeat_interleave(size, dim=1)[:, None]

    mean = integral(values)
    centred = values - spread(mean)
    variance = integral(centred**2)
    return _scale(centred, spread(torch.rsqrt(variance + layer.eps)), layer).to(sampled.values.dtype), mean, variance


def _scale(centred: Tensor, scale: Tensor, layer: nn.Module) -> Tensor:
    """Return centred * scale * weight + bias in one pass over the values; scale is small."""
    scale = scale if layer.weight is None else scale * layer.weight
    return centred * scale if layer.bias is None else torch.addcmul(layer.bias, centred, scale)


def _correction(count: Tensor) -> Tensor:
    """Return m / (m - 1) for m values, bounded where one value outweighs all others."""
    return count / (count - 1).clamp(min=1)


def _register_affine(layer: nn.Module, channels: int, weight: bool, bias: bool) -> None:
    layer.weight = nn.Parameter(torch.ones(channels)) if weight else None
    layer.bias = nn.Parameter(torch.zeros(channels)) if bias else None


def _register_statistics(layer: nn.Module, channels: int, tracked: bool) -> None:
    layer.register_buffer("running_mean", torch.zeros(channels) if tracked else None)
    layer.register_buffer("running_var", torch.ones(channels) if tracked else None)
    layer.register_buffer("num_batches_tracked", torch.tensor(0) if tracked else None)


def _step(layer: nn.Module) -> float:
    """Count a training step; return the share of its statistics in the running ones."""
    layer.num_batches_tracked.add_(1)
    return 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum


@torch.no_grad()
def _track(layer: nn.Module, mean: Tensor, variance: Tensor, momentum: float) -> None:
    layer.running_mean.lerp_(mean.to(layer.running_mean), momentum)
    layer.running_var.lerp_(variance.to(layer.running_var), momentum)
