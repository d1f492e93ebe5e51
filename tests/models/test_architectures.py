"""Every architecture on every kind of domain: gradients, order of the points, more and more points, and what is refused."""

import itertools

import pytest
import torch
from small_models import CLASSIFIERS, DENSE, SMALL, small, smooth, values

from inrbridge.discretization import Discretization
from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.errors import ConfigError, EmptyDiscretization, ShapeMismatch
from inrbridge.models import build_model
from inrbridge.nn import Sampled
from inrbridge.sampling import get_sampler, grid, lattice, shrunk, sobol

BOX = Box.centered(2)
DOMAINS = [
    Box.centered(1), BOX, Box((0.0, -1.0, 2.0), (2.0, 1.0, 3.0)), Torus((1.0, 2.0)), Torus((1.0, 1.0, 1.0)),
    Ball((0.0, 0.0), 1.0), Region(BOX, lambda x: x.norm(dim=-1) < 0.8), Sphere(),
]  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: f"{type(d).__name__}{d.dim}")
def test_gradients_reach_every_parameter_on_every_domain(name, domain, generator):
    net = small(name, generator, domain, channels=2).train()
    points = sobol(domain, 256, generator)
    out = values(net, Sampled(points, torch.randn(3, 256, 2, generator=generator)))
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    assert out.shape == ((3, 256, 3) if name in DENSE else (3, 3)) and out.isfinite().all()
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), key
        if not (name == "transformer" and key.endswith("key.bias")):  # the softmax does not see what is added to all keys
            assert p.grad.abs().max() > 0, key


# the prefixes of 256 points that a net thins them to, or attends to
PREFIXES = {("inr-net-2", ""): [16, 64], ("inr-net-4", ""): [16, 64], ("inr-net-3", ""): [], ("transformer", ""): [],
            ("transformer", "conv"): [16], ("transformer", "points"): [32]}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tokens"), [*((name, "") for name in SMALL), ("transformer", "conv"), ("transformer", "points")]
)
def test_the_order_of_the_points_does_not_matter(name, tokens, generator):
    """Q10: no order but that of the scales; each keeps the points that it has."""
    options = {"tokens": tokens, "keys": 32} if tokens else {}
    net = small(name, generator, BOX, **options).double()
    points = sobol(BOX, 256, generator, dtype=torch.float64)
    edges = [0, *PREFIXES.get((name, tokens), [64]), 256]
    order = torch.cat([a + torch.randperm(b - a, generator=generator) for a, b in itertools.pairwise(edges)])
    given, moved = (Discretization(points.points[o], points.weights[o], BOX) for o in (slice(None), order))
    expected = values(net, smooth(given))
    expected = expected[:, order] if name in DENSE else expected
    torch.testing.assert_close(values(net, smooth(moved)), expected, atol=1e-9, rtol=1e-9)


CASES = [*((name, {}) for name in SMALL), ("transformer", {"tokens": "conv"}), ("transformer", {"tokens": "points", "keys": 512}),
         *((name, {"resample": "grid"}) for name in ("convnet", "resnet", "convnext", "unet"))]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("domain", [BOX, Torus((2.0, 2.0))], ids=lambda d: type(d).__name__)
def test_outputs_converge_as_points_are_added(name, options, domain, generator):
    """Q5 at first sight: what differs between two samplers falls as both take more points."""
    net = small(name, generator, domain, **options).double()
    at = lattice(domain, 50, dtype=torch.float64).points

    def apart(n: int) -> float:
        found = []
        for sampler in ("lattice", "sobol"):
            samples = smooth(get_sampler(sampler)(domain, n, torch.Generator().manual_seed(n), dtype=torch.float64))
            found.append(net(samples, at=at) if name in DENSE else net(samples))
        return float(((found[0] - found[1]).abs().mean() / found[0].std()).detach())

    few, many = apart(128), apart(1024)
    assert many < 0.6 * few and many < 0.15, (few, many)


def test_negative_control_points_that_crowd_need_their_weights(generator):
    net = small("resnet", generator, BOX).double()
    crowd = shrunk(BOX, 2048, generator, weights="density", dtype=torch.float64)
    truth = net(smooth(lattice(BOX, 2048, generator, dtype=torch.float64)))
    equal = Discretization(crowd.points, torch.full_like(crowd.weights, BOX.measure / len(crowd)), BOX)
    weighted, unweighted = (((net(smooth(d)) - truth).abs().mean() / truth.std()).item() for d in (crowd, equal))
    assert weighted < 0.1 < unweighted


@pytest.mark.parametrize("name", SMALL)
def test_double_precision_and_half_follow_the_net(name, generator):
    sampled = smooth(sobol(BOX, 128, generator))
    full = values(small(name, torch.Generator().manual_seed(1), BOX), sampled)
    double = values(
        small(name, torch.Generator().manual_seed(1), BOX).double(), Sampled(sampled.discretization, sampled.values.double())
    )
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["convnet", "resnet", "convnext", "unet"])
def test_with_points_of_its_own_a_net_of_a_grid_is_a_discrete_net_whatever_it_is_given(name, generator):
    net = small(name, generator, BOX, resample="grid")
    assert net.own_discretization().structure.shape == (8, 8)
    own, other = smooth(net.own_discretization()), smooth(sobol(BOX, 1024, generator))
    outs = [net(x, at=net.own_discretization().points) if name in DENSE else net(x) for x in (own, other)]
    torch.testing.assert_close(*outs, atol=0.05, rtol=0.05)


def test_grids_whose_sides_the_strides_do_not_divide(generator):
    for shape in ((9, 7), (5, 12)):
        points = grid(BOX, shape)
        for name in SMALL:
            assert values(small(name, generator, BOX), smooth(points)).isfinite().all(), (name, shape)


@pytest.mark.parametrize("name", SMALL)
def test_what_does_not_fit_is_refused_in_one_sentence(name, generator):
    net = small(name, generator, BOX, channels=2)
    with pytest.raises(ShapeMismatch, match=f"Got fields of 1 channels, expected 2 by this {name}"):
        net(smooth(sobol(BOX, 64)))
    if net.fewest > 1:
        with pytest.raises(EmptyDiscretization, match=f"Got 1 points for this {name}, expected at least"):
            net(smooth(sobol(BOX, 1), 2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {"blocks": [1]}, "3 widths and 1 blocks"),
        ("resnet", {"strides": [1]}, "3 widths and 1 strides"),
        ("resnet", {"norm": "bach"}, 'norm "bach"'),
        ("resnet", {"border": "valid"}, "keeps the domain"),
        ("resnet", {"resample": "uniform"}, 'resample "uniform"'),
        ("resnet", {"resample": "grid", "points": 4}, "4 points of its own"),
        ("convnext", {"strides": [2]}, "3 widths, 3 blocks and 1 strides"),
        ("convnext", {"border": "valid"}, "keeps the domain"),
        ("transformer", {"heads": 3}, "divides the channels"),
        ("transformer", {"patch": 5}, "a size that divides it"),
        ("transformer", {"tokens": "words"}, 'tokens "words"'),
        ("resnet", {"widths": 16}, "widths = 16 for the model resnet, expected a list"),
        ("resnet", {"blocks": [1, 0, 1]}, r"blocks = \[1, 0, 1\]"),
        ("convnet", {"resolution": 0}, "resolution = 0 for the model convnet, expected a whole number"),
        ("convnext", {"kernel_size": 7.5}, "kernel_size = 7.5"),
        ("transformer", {"patch": 0}, "patch = 0"),
        ("unet", {"widths": []}, r"widths = \[\]"),
        ("unet", {"stride": 0}, "stride = 0"),
        ("unet", {"points": -3}, "points = -3"),
        ("unet", {"upsample": "cubic"}, 'interpolation mode "cubic"'),
        ("unet", {"border": "valid"}, "keeps the domain"),
        ("inr-net-2", {"widths": [4]}, "1 widths for the model inr-net-2, expected 2"),
        ("inr-net-3", {"widths": [4]}, "expected 3"),
        ("inr-net-2", {"bins": 0}, "bins = 0"),
        ("inr-net-3", {"half_width": [0.1, 0.0, 0.1]}, "shares above 0"),
        ("inr-net-4", {"half_width": [0.1]}, "1 values of half_width"),
        ("inr-net-5", {"half_width": [0.1]}, "1 values of half_width"),
    ],
)
def test_options_that_contradict_each_other(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, BOX, 1, 3, **options)


def test_every_classifier_and_dense_net_states_what_it_is_for():
    assert {small(name, None, BOX).kind for name in CLASSIFIERS} == {"classification"}
    assert {small(name, None, BOX).kind for name in DENSE} == {"dense"}
