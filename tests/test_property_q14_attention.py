"""Law Q14: attention between channels preserves the domain, attention between points respects the quadrature weights.

Wang & Golland 2023, appendix C, eq. (131)-(134), with the rates of Q2 for every integral that attention takes.
"""

from dataclasses import replace

import pytest
import torch
from reference_rates import rates
from reference_rules import DOUBLE, crowded, equally_weighted, rule, shuffled

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.nn import ChannelAttention, Linear, PointAttention, Sampled, Sequential, Tokenize, TransformerBlock
from inrbridge.sampling import lattice, sobol

DOMAINS = [
    Box.centered(1),
    Box.centered(2),
    Box.centered(3),
    Ball((0.0, 0.0), 1.0),
    Ball((0.0,) * 3, 1.0),
    Sphere(),
    Torus((1.0, 2.0)),
    Region(Box.centered(2), lambda x: x.norm(dim=-1) < 0.9, measure=torch.pi * 0.81),
]
each_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dim}")
SEEN = 12  # points of no weight, at which outputs on different discretizations are compared


def function(x):
    """Four channels of two smooth fields, on coordinates of any dimension."""
    a, b = x[:, 0], x.sum(1)
    first = torch.stack([torch.sin(b), torch.exp(-a), torch.cos(a - b), torch.cos(2 * a)], 1)
    return torch.stack([first, first.flip(1) ** 2 - 0.5])


def sampled(points):
    return Sampled(points, function(points.points))


def channel_layer(domain, heads=1, **options):
    return ChannelAttention(4, 3, domain, heads=heads, degree=2, generator=torch.Generator().manual_seed(1), **options).double()


def point_layer(**options):
    layer = PointAttention(4, 2, generator=torch.Generator().manual_seed(1), **options).double()
    with torch.no_grad():
        layer.query.weight *= 2  # attention that tells points apart
    return layer


def fixed(domain):
    return sampled(sobol(domain, SEEN, torch.Generator().manual_seed(9), dtype=DOUBLE))


# Channel attention


@each_domain
def test_the_matrix_is_of_channels_and_its_rows_sum_to_one(domain):
    layer = channel_layer(domain, heads=2)
    for n in (64, 256):  # of one size, whatever the points
        matrix = layer.matrix(sampled(sobol(domain, n, dtype=DOUBLE)))
        assert matrix.shape == (2, 2, 3, 3) and (matrix > 0).all()
        torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 2, 3, dtype=DOUBLE))
    assert (matrix.sum(-2) - 1).abs().max() > 1e-3  # negative control: the columns do not


@each_domain
def test_the_domain_is_preserved(domain):
    field = sampled(sobol(domain, 64, dtype=DOUBLE))
    assert channel_layer(domain)(field).discretization is field.discretization
    assert point_layer()(field).discretization is field.discretization


def test_values_that_are_constant_over_channels_stay_as_they_are():
    field = sampled(lattice(Sphere(), 64, dtype=DOUBLE))
    same = Linear(4, 3).double()
    with torch.no_grad():
        same.weight.copy_(same.weight[:1].expand(3, 4))
        same.bias.fill_(0.3)
    torch.testing.assert_close(channel_layer(Sphere(), value=same)(field).values, same(field).values)
    other = channel_layer(Sphere())  # negative control: other values are mixed
    assert (other(field).values - other.value(field).values).abs().max() > 0.01


@each_domain
@torch.no_grad()
def test_queries_and_keys_are_inner_products(domain):
    """Q_j = sum_i <q_ij, f_i>: by exact rules, where there are some, else by many points."""
    layer = channel_layer(domain)
    if isinstance(domain, Region | Torus):
        exact = sobol(domain, 2**16, dtype=DOUBLE)
    else:
        points, weights = rule(domain, 16)
        exact = Discretization(points, weights * domain.measure, domain)
    functions = layer.query.function(exact.points).unflatten(1, (4, 3))
    expected = torch.einsum("n,bni,nij->bj", exact.weights / domain.measure, function(exact.points), functions)
    found = layer.query(sampled(sobol(domain, 2**12, dtype=DOUBLE)))
    assert (found - expected).abs().max() < 5e-3
    assert (layer.query(sampled(crowded(domain.envelope, 2**12))) - expected).abs().max() < 0.03 or isinstance(domain, Region)


@pytest.mark.parametrize("part", ["query", "key"])
@pytest.mark.parametrize(
    "domain", [Box.centered(2), Ball((0.0, 0.0), 1.0), Sphere(), Torus((1.0, 2.0))], ids=lambda d: type(d).__name__
)
def test_rate_of_queries_and_keys(domain, part):
    layer = getattr(channel_layer(domain), part)
    slope, errors = rates(lambda points: layer(sampled(points)), domain, "sobol", scrambles=8)
    random, others = rates(lambda points: layer(sampled(points)), domain, "uniform", scrambles=20)
    assert slope <= -0.8, errors
    assert -0.65 <= random <= -0.35, others
    assert errors[-1] < others[-1] / 5


@each_domain
@torch.no_grad()
def test_the_output_is_a_function_evaluable_anywhere(domain):
    layer = channel_layer(domain, heads=2)
    field, places = sampled(sobol(domain, 64, dtype=DOUBLE)), fixed(domain)
    anywhere = layer(field, at=places)
    torch.testing.assert_close(layer(field, at=field).values, layer(field).values)
    # the same function, from samples that hold those places as points of no weight
    points = torch.cat([places.discretization.points, field.discretization.points])
    weights = torch.cat([torch.zeros(SEEN, dtype=DOUBLE), field.discretization.weights])
    joined = layer(sampled(Discretization(points, weights, domain)))
    torch.testing.assert_close(anywhere.values, joined.values[:, :SEEN])


def test_cross_attention_of_a_field_with_itself_is_self_attention():
    field = sampled(lattice(Sphere(), 64, dtype=DOUBLE))
    layer = channel_layer(Sphere(), heads=2)
    torch.testing.assert_close(layer(field, field).values, layer(field).values)
    layer = point_layer()
    torch.testing.assert_close(layer(field, field).values, layer(field).values)


def test_each_head_is_an_attention_of_its_own():
    """Two heads are two layers of one head side by side, so that one head is the plain attention."""
    field, both = sampled(lattice(Sphere(), 64, dtype=DOUBLE)), channel_layer(Sphere(), heads=2)
    out = both(field).values
    for head in range(2):
        one, channels = channel_layer(Sphere()), slice(3 * head, 3 * head + 3)
        with torch.no_grad():
            for ours, theirs in ((one.query.function, both.query.function), (one.key.function, both.key.function)):
                ours.coefficients.copy_(theirs.coefficients.view(4, 6, -1)[:, channels].flatten(0, 1))
            one.value.weight.copy_(both.value.weight[channels])
            one.value.bias.copy_(both.value.bias[channels])
        torch.testing.assert_close(one(field).values, out[:, :, channels])


def test_it_is_not_attention_between_points():
    """Eq. (134) mixes channels: what it makes of a point depends on that point and on integrals, not on where others lie.

    Two fields of equal inner products, one the other with values exchanged between places where q and k are equal, differ
    there only as V does; attention between points sees the exchange everywhere.
    """
    layer = channel_layer(Sphere(), value=None)
    with torch.no_grad():
        for part in (layer.query, layer.key):
            part.function.coefficients[:, 1:] = 0  # constant q and k: integrals of the channels
    points = lattice(Sphere(), 64, dtype=DOUBLE)
    field = sampled(points)
    order = torch.cat([torch.arange(32), 32 + torch.randperm(32, generator=torch.Generator().manual_seed(0))])
    moved = field.with_values(field.values[:, order])
    torch.testing.assert_close(layer(moved).values, layer(field).values[:, order])
    assert torch.equal(layer.matrix(field).round(decimals=9), layer.matrix(moved).round(decimals=9))


# Attention between points and between tokens


def at_places(layer, source):
    """What a layer makes of the fixed places, the points of `source` being its keys."""
    return layer(fixed(source.domain), sampled(source)).values


@each_domain
def test_rate_of_attention_between_points(domain):
    layer = point_layer()
    slope, errors = rates(lambda points: at_places(layer, points), domain, "sobol", scrambles=8)
    random, others = rates(lambda points: at_places(layer, points), domain, "uniform", scrambles=20)
    if isinstance(domain, Region):  # drawn from its envelope: piecewise smooth
        assert slope <= -0.65 and errors[-1] < others[-1] / 2, errors
    else:
        assert slope <= -0.8 and errors[-1] < others[-1] / 5, errors
    assert -0.65 <= random <= -0.35, others


@pytest.mark.parametrize("domain", DOMAINS[:-1], ids=lambda d: f"{type(d).__name__}{d.dim}")
@torch.no_grad()
def test_points_that_crowd_change_nothing_where_weights_undo_it(domain):
    layer = point_layer()
    truth = at_places(layer, sobol(domain, 2**14, dtype=DOUBLE))
    crowd = crowded(domain, 2**12, power=1.5)
    assert (at_places(layer, crowd) - truth).abs().max() < 0.02 * truth.abs().max()
    # negative control: without weights attention goes where the points are
    assert (at_places(layer, equally_weighted(crowd)) - truth).abs().max() > 0.05 * truth.abs().max()


@torch.no_grad()
def test_a_point_that_stands_twice_counts_once():
    layer = point_layer()
    points = sobol(Box.centered(2), 32, dtype=DOUBLE)
    twice = torch.cat([torch.arange(32), torch.arange(8)])
    weights = points.weights[twice].clone()
    weights[:8] /= 2
    weights[32:] /= 2
    doubled = Discretization(points.points[twice], weights, points.domain)
    torch.testing.assert_close(at_places(layer, doubled), at_places(layer, points), rtol=0, atol=1e-12)
    unweighted = equally_weighted(doubled)
    assert (at_places(layer, unweighted) - at_places(layer, points)).abs().max() > 1e-2  # negative control


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: channel_layer(Sphere(), heads=2), point_layer,
                                  lambda: TransformerBlock(4, 2, generator=torch.Generator().manual_seed(0)).double()],
                         ids=["channels", "points", "block"])  # fmt: skip
def test_the_order_of_the_points_does_not_matter(make):
    layer, points = make(), crowded(Sphere(), 50)
    others, order = shuffled(points)
    torch.testing.assert_close(layer(sampled(others)).values, layer(sampled(points)).values[:, order])


@torch.no_grad()
@pytest.mark.parametrize("sampler", [lattice, sobol])
def test_fewer_keys_cost_a_bounded_error(sampler):
    """The prefix of the points is a coarser discretization: attention to it is the same integral, by fewer points."""
    layer = point_layer()
    points = sampler(Box.centered(2), 2**12, dtype=DOUBLE)
    full, errors = at_places(layer, points), []
    for keys in (2**6, 2**10):
        fewer = point_layer(keys=keys)
        errors.append((at_places(fewer, points) - full).abs().max() / full.abs().max())
    assert errors[1] < 0.02 and errors[1] < errors[0] / 3


@torch.no_grad()
def test_tokens_of_no_part_of_a_region_are_not_seen():
    """Tokens outside a region weigh nothing: attention between tokens is the same whatever they hold."""
    corner = Region(Box.unit(2), lambda x: x[..., 0] + x[..., 1] < 0.5, measure=0.125)
    tokens = Tokenize(4, 4, 2, generator=torch.Generator().manual_seed(0)).double()(sampled(sobol(corner, 500, dtype=DOUBLE)))
    changed = tokens.values.clone()
    changed[:, 1:] += 5
    layer = point_layer()
    torch.testing.assert_close(layer(tokens).values[:, 0], layer(tokens.with_values(changed)).values[:, 0])
    even = replace(tokens.discretization, weights=torch.full((4,), 0.125 / 4, dtype=DOUBLE), cache={})
    first, second = (layer(Sampled(even, values)).values[:, 0] for values in (tokens.values, changed))
    assert (first - second).abs().max() > 0.1  # negative control


@torch.no_grad()
def test_a_net_of_blocks_converges_as_points_are_added():
    """Depth 2: every block integrates over what the one before it made."""
    generator = torch.Generator().manual_seed(0)
    widen, blocks = Linear(4, 16, generator=generator), (TransformerBlock(16, 2, generator=generator) for _ in range(2))
    net = Sequential(widen, *blocks).double()
    places = fixed(Sphere())

    def output(points):
        joined = torch.cat([places.discretization.points, points.points])
        weights = torch.cat([torch.zeros(SEEN, dtype=DOUBLE), points.weights])
        return net(sampled(Discretization(joined, weights, Sphere()))).values[:, :SEEN]

    slope, errors = rates(output, Sphere(), "sobol", (32, 64, 128), 8)
    _, others = rates(output, Sphere(), "uniform", (32, 64, 128), 8)
    assert slope <= -0.8 and errors[-1] < others[-1] / 5, errors
