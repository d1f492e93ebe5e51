"""Attention between points equals torch's where all keys weigh the same, and its slow twin elsewhere; the laws are Q14."""

import math
from dataclasses import replace

import pytest
import torch
from reference_rules import DOUBLE, crowded, shuffled
from torch import nn

from inrbridge.domains import Ball, Box, Sphere, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import PointAttention, Sampled, Tokenize
from inrbridge.sampling import grid, lattice, sobol

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def field(points, channels, generator, fields=2, dtype=DOUBLE):
    return Sampled(points, torch.randn(fields, len(points), channels, generator=generator, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("context_channels", [None, 6])
@pytest.mark.parametrize("heads", [1, 4])
def test_equals_torch_where_weights_are_equal(heads, context_channels, bias, dtype, generator):
    theirs = nn.MultiheadAttention(
        8, heads, bias=bias, kdim=context_channels, vdim=context_channels, batch_first=True, dtype=dtype
    )
    if bias:
        nn.init.normal_(theirs.in_proj_bias), nn.init.normal_(theirs.out_proj.bias)
    ours = PointAttention.from_discrete(theirs)
    sampled = field(lattice(Box.unit(2), 16, dtype=dtype), 8, generator, dtype=dtype)
    context = None if context_channels is None else field(sobol(Sphere(), 20, dtype=dtype), 6, generator, dtype=dtype)
    seen = sampled.values if context is None else context.values
    expected = theirs(sampled.values, seen, seen, need_weights=False)[0]
    torch.testing.assert_close(ours(sampled, context).values, expected, rtol=0, atol=TOLERANCE[dtype])


def reference(layer, sampled, source):
    """Query by query: the integral over the keys of softmax weights times values, by plain sums."""
    size = layer.channels // layer.heads
    q, k, v = (
        part.weight @ x.values[..., None] + (0 if part.bias is None else part.bias[:, None])
        for part, x in ((layer.query, sampled), (layer.key, source), (layer.value, source))
    )
    weights = source.discretization.weights
    out = torch.zeros(*sampled.values.shape[:2], layer.channels, dtype=DOUBLE)
    for b in range(len(sampled.values)):
        for i in range(sampled.values.shape[1]):
            for h in range(layer.heads):
                part = slice(h * size, (h + 1) * size)
                mass = weights * torch.exp((k[b, :, part, 0] @ q[b, i, part, 0]) / math.sqrt(size))
                out[b, i, part] = (mass[:, None] * v[b, :, part, 0]).sum(0) / mass.sum()
    return out @ layer.output.weight.T + layer.output.bias


@pytest.mark.parametrize("domain", [Box.unit(2), Ball((0.0,) * 3, 1.0), Sphere(), Torus((1.0,))], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("cross", [False, True])
@torch.no_grad()
def test_equals_the_slow_twin_on_weighted_points(cross, domain, generator):
    layer = PointAttention(6, 2, context_channels=4 if cross else None, generator=generator).double()
    sampled = field(crowded(domain, 24), 6, generator)
    context = field(crowded(Sphere(), 30), 4, generator) if cross else None
    out = layer(sampled, context)
    torch.testing.assert_close(out.values, reference(layer, sampled, context or sampled))
    assert out.discretization is sampled.discretization
    alone = layer(sampled.with_values(sampled.values[1:]), context and context.with_values(context.values[1:]))
    torch.testing.assert_close(alone.values, out.values[1:])
    points, order = shuffled(sampled.discretization)
    torch.testing.assert_close(layer(Sampled(points, sampled.values[:, order]), context).values, out.values[:, order])


def test_one_context_serves_all_fields(generator):
    layer = PointAttention(4, 2, generator=generator).double()
    sampled, context = field(crowded(Sphere(), 12), 4, generator), field(crowded(Sphere(), 9), 4, generator, fields=1)
    twice = context.with_values(context.values.repeat(2, 1, 1))
    torch.testing.assert_close(layer(sampled, context).values, layer(sampled, twice).values)


def test_points_of_no_weight_are_not_seen(generator):
    layer = PointAttention(4, 2, generator=generator).double()
    points = lattice(Box.unit(2), 16, dtype=DOUBLE)
    sampled = field(points, 4, generator)
    weights = points.weights.clone()
    weights[3] = 0
    seen = Sampled(replace(points, weights=weights / weights.sum(), cache={}), sampled.values)
    changed = seen.values.clone()
    changed[:, 3] = 100.0
    rest = [i for i in range(16) if i != 3]
    torch.testing.assert_close(layer(seen).values[:, rest], layer(seen.with_values(changed)).values[:, rest])


@pytest.mark.parametrize("keys", [1, 20, 64, 1000])
def test_fewer_keys_are_a_context_of_the_prefix(keys, generator):
    layer = PointAttention(4, 2, keys=keys, generator=generator).double()
    plain = PointAttention(4, 2).double()
    plain.load_state_dict(layer.state_dict())
    for points in (lattice(Box.unit(2), 64, dtype=DOUBLE), crowded(Sphere(), 64)):
        sampled = field(points, 4, generator)
        n = min(keys, 64)
        context = Sampled(points.prefix(n), sampled.values[:, :n])
        torch.testing.assert_close(layer(sampled).values, plain(sampled, context).values)


def test_fewer_keys_of_a_grid_are_strides_of_its_axes(generator):
    layer = PointAttention(4, 2, keys=10, generator=generator).double()
    plain = PointAttention(4, 2).double()
    plain.load_state_dict(layer.state_dict())
    points = grid(Box.unit(2), (8, 6), dtype=DOUBLE)
    sampled = field(points, 4, generator)
    kept = sampled.values.view(2, 8, 6, 4)[:, ::3, ::3].flatten(1, 2)  # by 2: 4 x 3 = 12 points, more than 10
    torch.testing.assert_close(layer(sampled).values, plain(sampled, Sampled(points.thin(3), kept)).values)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(weighted, generator):
    points = crowded(Sphere(), 5) if weighted else sobol(Sphere(), 5, dtype=DOUBLE)
    layer = PointAttention(4, 2, context_channels=3, generator=generator).double()
    a, b = field(points, 4, generator).values.requires_grad_(), field(points, 3, generator).values.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y, *_: layer(Sampled(points, x), Sampled(points, y)).values, (a, b, *layer.parameters())
    )


def test_half_precision_and_the_dtype_of_the_input(generator):
    layer = PointAttention(8, 2, generator=generator)
    sampled = field(crowded(Sphere(), 40), 8, generator, dtype=torch.float32)
    expected = layer(sampled).values
    found = layer.bfloat16()(sampled.with_values(sampled.values.bfloat16())).values
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.05)


def test_tokens_attend_to_tokens(generator):
    tokens = Tokenize(3, 8, 4, generator=generator)(field(lattice(Box.unit(2), 256), 3, generator, dtype=torch.float32))
    assert PointAttention(8, 2, generator=generator)(tokens).values.shape == (2, 16, 8)


def test_initial_weights_come_from_the_generator():
    first, second = (PointAttention(8, 2, generator=torch.Generator().manual_seed(0)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["query.weight"].abs().max() <= (6 / 16) ** 0.5 and not first["query.bias"].any()


def test_errors(generator):
    with pytest.raises(ConfigError, match="number of heads that divides"):
        PointAttention(6, 4)
    with pytest.raises(ConfigError, match="at least 1 point"):
        PointAttention(6, 2, keys=0)
    sampled = field(lattice(Box.unit(2), 8), 4, generator)
    with pytest.raises(ShapeMismatch, match=r"Got 4 channels in PointAttention\(6, 2\)"):
        PointAttention(6, 2)(sampled)
    with pytest.raises(ShapeMismatch, match="Got 4 channels in the context"):
        PointAttention(4, 2, context_channels=5).double()(sampled, sampled)
    with pytest.raises(ShapeMismatch, match="3 fields as the context of 2"):
        PointAttention(4, 2).double()(sampled, field(sampled.discretization, 4, generator, fields=3))
    with pytest.raises(ConfigError, match="keys and values of one field"):
        PointAttention.from_discrete(nn.MultiheadAttention(4, 2, kdim=3, vdim=5))
    with pytest.raises(ConfigError, match="add_zero_attn True"):
        PointAttention.from_discrete(nn.MultiheadAttention(4, 2, add_zero_attn=True))
