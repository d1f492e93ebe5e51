"""Channel attention (eq. 131-134) equals its slow twin; the laws are Q14."""

import math

import pytest
import torch
from reference_rules import DOUBLE, crowded, shuffled

from inrbridge.domains import Ball, Box, Product, Sphere, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.nn import ChannelAttention, Conv, GlobalIntegral, Sampled, Sequential
from inrbridge.sampling import grid, lattice

DOMAINS = [Box.unit(2), Ball((0.0,) * 3, 1.0), Sphere(), Torus((1.0, 2.0)), Product(Box.unit(1), Sphere())]


def field(points, channels, generator, fields=2):
    return Sampled(points, torch.randn(fields, len(points), channels, generator=generator, dtype=DOUBLE))


def reference(layer, sampled, second):
    """Field by field and head by head, from the values of q and k at the points."""
    d, out = layer.channels, []
    v = layer.value(sampled).values
    for b in range(len(sampled.values)):
        vectors = []
        for part, source in ((layer.query, second), (layer.key, sampled)):
            functions = part.function(source.discretization.points)  # (n, in * heads * d)
            products = functions.unflatten(1, (source.channels, -1)) * source.values[b][:, :, None]
            vectors.append((source.weights[:, None, None] * products).sum((0, 1)))
        heads = []
        for h in range(layer.heads):
            q, k = (vector[h * d : (h + 1) * d] for vector in vectors)
            matrix = torch.softmax(torch.outer(q, k) / math.sqrt(d), dim=1)
            heads.append(v[b, :, h * d : (h + 1) * d] @ matrix.T)  # g_j(x) = sum_k A_jk V_k(x)
        out.append(torch.cat(heads, 1))
    return torch.stack(out)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("hidden", [None, (6,)], ids=["basis", "MLP"])
@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: type(d).__name__)
@torch.no_grad()
def test_equals_the_slow_twin(domain, hidden, cross, generator):
    layer = ChannelAttention(
        3, 4, domain, heads=2, degree=2, hidden=hidden, query_channels=2 if cross else None, generator=generator
    ).double()
    sampled = field(crowded(domain, 30), 3, generator)
    query = field(crowded(domain, 20, 1.5), 2, generator) if cross else None
    out = layer(sampled, query)
    assert out.discretization is sampled.discretization and out.channels == 8
    torch.testing.assert_close(out.values, reference(layer, sampled, query or sampled))
    alone = layer(sampled.with_values(sampled.values[1:]), query and query.with_values(query.values[1:]))
    torch.testing.assert_close(alone.values, out.values[1:])
    points, order = shuffled(sampled.discretization)
    torch.testing.assert_close(layer(Sampled(points, sampled.values[:, order]), query).values, out.values[:, order])


def test_a_convolution_makes_the_values(generator):
    """Eq. (133): V[f] is a convolution; its output lies where the convolution puts it."""
    conv = Conv(3, 8, 3, spacing=1 / 8, stride=2, generator=generator)
    layer = ChannelAttention(3, 4, Box.unit(2), heads=2, value=conv, generator=generator)
    points = grid(Box.unit(2), 64)
    sampled = Sampled(points, torch.randn(2, 64, 3, generator=generator))
    out = layer(sampled)
    assert out.discretization is points.thin(2) and any(p is conv.weight for p in layer.parameters())
    expected = torch.einsum("bhjk,bnhk->bnhj", layer.matrix(sampled), conv(sampled).values.unflatten(2, (2, 4))).flatten(2)
    torch.testing.assert_close(out.values, expected)


@pytest.mark.parametrize("hidden", [None, (3,)], ids=["basis", "MLP"])
def test_gradients(hidden, generator):
    layer = ChannelAttention(2, 2, Sphere(), heads=2, degree=1, hidden=hidden, generator=generator).double()
    points = crowded(Sphere(), 5)
    values = field(points, 2, generator).values.requires_grad_()
    query = field(points, 2, generator).values.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, q, *_: layer(Sampled(points, v), Sampled(points, q)).values, (values, query, *layer.parameters())
    )


def test_initial_logits_are_of_moderate_size():
    layer = ChannelAttention(64, 16, Sphere(), degree=4, generator=torch.Generator().manual_seed(0))
    sampled = Sampled(lattice(Sphere(), 512), torch.randn(8, 512, 64, generator=torch.Generator().manual_seed(1)))
    matrix = layer.matrix(sampled)
    assert matrix.max() < 0.5  # far from choosing one channel


def test_initial_weights_come_from_the_generator():
    def draw():
        return ChannelAttention(2, 3, Sphere(), generator=torch.Generator().manual_seed(0)).state_dict()

    first, second = draw(), draw()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_errors(generator):
    sampled = field(lattice(Sphere(), 8, dtype=DOUBLE), 3, generator)
    with pytest.raises(ConfigError, match="expected at least one of each"):
        ChannelAttention(3, 4, Sphere(), heads=0)
    with pytest.raises(ShapeMismatch, match="Got 3 channels in ChannelAttention"):
        ChannelAttention(2, 4, Sphere()).double()(sampled)
    with pytest.raises(ShapeMismatch, match="Got 3 channels in the queries"):
        ChannelAttention(3, 4, Sphere(), query_channels=2).double()(sampled, sampled)
    with pytest.raises(ShapeMismatch, match="give both one domain"):
        ChannelAttention(3, 4, Box.unit(2)).double()(sampled)
    with pytest.raises(ShapeMismatch, match="expected 8 = heads"):
        ChannelAttention(3, 4, Sphere(), heads=2, value=torch.nn.Identity()).double()(sampled)
    with pytest.raises(ShapeMismatch, match="4 fields"):
        ChannelAttention(3, 4, Sphere()).double()(sampled, at=field(sampled.discretization, 3, generator, fields=4))


def test_a_net_with_it_learns_which_field_it_sees(generator):
    """Fields that differ in their mean only, told apart through the matrix: values are mixed, never added to."""
    points = lattice(Sphere(), 64)
    labels = torch.arange(32) % 2
    values = torch.randn(32, 64, 2, generator=generator) + 0.5 * labels[:, None, None]
    net = Sequential(ChannelAttention(2, 4, Sphere(), degree=1, generator=generator), GlobalIntegral(), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(net(Sampled(points, values)), labels)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert float(loss.detach()) < 0.2
