"""Floor 6: normalization on points: statistics over pixels are integrals (Wang & Golland 2023, eq. 128-130)."""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor
from torch.nn import functional

from inrbridge.models.converted.located import Located, NeedsGrid, from_grid
from inrbridge.models.converted.rules.table import Run, rule
from inrbridge.nn.norm import normalize_batch, normalize_instances, standardize


def _map(x: Located) -> Located:
    if x.values.ndim != 3 or x.axis != 2:
        raise NeedsGrid(x.level, "it normalizes the channels of maps (b, c, *shape)")
    return x


def _back(x: Located, values: Tensor) -> Located:
    """Values (b, n, c) at the places of x."""
    return x.with_values(values.transpose(1, 2))


@rule("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
def _batch(run: Run, module, input):
    x = _map(input)
    if x.level.on_grid:
        return _natively(x, module)
    return _back(x, normalize_batch(x.sampled(), module).values)


@rule("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
def _instance(run: Run, module, input):
    x = _map(input)
    return _natively(x, module) if x.level.on_grid else _back(x, normalize_instances(x.sampled(), module).values)


@rule("GroupNorm")
def _group(run: Run, module, input):
    return group_norm(run, input, module.num_groups, module.weight, module.bias, module.eps)


def _natively(x: Located, operation) -> Located:
    return x.with_values(operation(x.values)) if x.tokens else from_grid(operation(x.on_grid()), x.level)


@rule("functional.group_norm")
def group_norm(run: Run, input, num_groups, weight=None, bias=None, eps=1e-5):
    """torch.nn.functional.group_norm."""
    x = _map(input)
    if x.level.on_grid:
        return _natively(x, lambda v: functional.group_norm(v, num_groups, weight, bias, eps))
    return _back(x, standardize(x.sampled(), num_groups, SimpleNamespace(weight=weight, bias=bias, eps=eps))[0])


@rule("functional.batch_norm")
def batch_norm(run: Run, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """torch.nn.functional.batch_norm."""
    x = _map(input)
    if x.level.on_grid:
        return _natively(x, lambda v: functional.batch_norm(v, running_mean, running_var, weight, bias, training, momentum, eps))
    layer = SimpleNamespace(running_mean=running_mean, running_var=running_var, weight=weight, bias=bias, training=training,
                            momentum=momentum, eps=eps, track_running_stats=running_mean is not None,
                            num_batches_tracked=running_var.new_zeros(()) if running_var is not None else None)  # fmt: skip
    return _back(x, normalize_batch(x.sampled(), layer).values)


@rule("functional.instance_norm")
def instance_norm(run: Run, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
                  momentum=0.1, eps=1e-5):  # fmt: skip
    """torch.nn.functional.instance_norm."""
    x = _map(input)
    if running_mean is not None:
        raise NeedsGrid(x.level, "it keeps statistics outside of any module")
    return group_norm(run, x, x.values.shape[1], weight, bias, eps)


def _over_channels(x: Located, normalized_shape) -> None:
    count = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
    if any(x.dim(-1 - i) is None for i in range(count)):
        raise NeedsGrid(x.level, "it normalizes over pixels and has weights for each")


@rule("LayerNorm")
def _layer(run: Run, module, input):
    return layer_norm(run, input, module.normalized_shape, module.weight, module.bias, module.eps)


@rule("RMSNorm")
def _root_mean_square(run: Run, module, input):
    return rms_norm(run, input, module.normalized_shape, module.weight, module.eps)


@rule("functional.layer_norm")
def layer_norm(run: Run, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """torch.nn.functional.layer_norm."""
    if weight is None and input.is_map and tuple(normalized_shape) == tuple(input.shape[1:]):
        return group_norm(run, input, 1, None, None, eps)
    _over_channels(input, normalized_shape)
    return input.with_values(functional.layer_norm(input.values, normalized_shape, weight, bias, eps))


@rule("functional.rms_norm")
def rms_norm(run: Run, input, normalized_shape, weight=None, eps=None):
    """torch.nn.functional.rms_norm."""
    _over_channels(input, normalized_shape)
    return input.with_values(functional.rms_norm(input.values, normalized_shape, weight, eps))


@rule("LocalResponseNorm", "functional.local_response_norm")
def _response(run: Run, *args, **kwargs):
    x = next(a for a in args if isinstance(a, Located))
    raise NeedsGrid(x.level, "it normalizes by neighbouring channels")
