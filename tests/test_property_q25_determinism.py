"""Law Q25, the points' part: one seed gives one point set, and X_N is a prefix of X_2N for every N."""

import pytest
import torch

from inrbridge.domains import Box, Product, Region, Sphere
from inrbridge.sampling import get_sampler

SAMPLERS = ["lattice", "sobol", "halton", "uniform", "shrunk", "importance"]
DOMAINS = [Box.centered(2), Sphere(), Product(Box.unit(1), Sphere()), Region(Box.unit(2), lambda x: x.sum(-1) < 0.8)]


def draw(name, domain, n, seed=0, **options):
    if name == "importance":
        options["density"] = lambda x: 1 + x[..., 0] ** 2
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return get_sampler(name)(domain, n, generator, **options)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("seed", [None, 0])
def test_every_shorter_set_is_a_prefix_of_every_longer_one(name, domain, seed):
    longest = draw(name, domain, 200, seed)
    for n in [*range(1, 20), 31, 32, 33, 64, 97, 100, 128, 199]:
        x = draw(name, domain, n, seed)
        assert torch.equal(x.points, longest.points[:n])
        assert torch.equal(x.extend_to(min(2 * n, 200)).points, longest.points[: min(2 * n, 200)])


@pytest.mark.parametrize("name", SAMPLERS)
def test_long_extensions_cross_the_borders_of_blocks(name):
    longer = draw(name, Box.centered(2), 70_000)
    for n in (4095, 4096, 4097, 65_537):
        assert torch.equal(draw(name, Box.centered(2), n).points, longer.points[:n])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_decides_the_points_and_nothing_else_does(name):
    first = draw(name, Box.centered(2), 100, seed=7)
    torch.manual_seed(123)  # the global state is neither read ...
    state = torch.get_rng_state()
    again = draw(name, Box.centered(2), 100, seed=7)
    assert torch.equal(first.points, again.points) and torch.equal(first.weights, again.weights)
    assert torch.equal(torch.get_rng_state(), state)  # ... nor moved on
    assert not torch.equal(first.points, draw(name, Box.centered(2), 100, seed=8).points)


@pytest.mark.parametrize("name", SAMPLERS)
def test_successive_draws_from_one_generator_differ(name):
    generator = torch.Generator().manual_seed(0)
    options = {"density": lambda x: 1 + x[..., 0] ** 2} if name == "importance" else {}
    first, second = (get_sampler(name)(Box.centered(2), 50, generator, **options) for _ in range(2))
    assert not torch.equal(first.points, second.points)


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_a_generator_the_points_are_fixed(name):
    assert torch.equal(draw(name, Box.centered(2), 100, None).points, draw(name, Box.centered(2), 100, None).points)


@pytest.mark.parametrize("name", ["lattice", "sobol", "halton", "uniform", "shrunk", "grid"])
def test_the_default_dtype_changes_the_precision_not_the_points(name):
    single = draw(name, Box.centered(2), 100)
    torch.set_default_dtype(torch.float64)
    try:
        double = draw(name, Box.centered(2), 100)
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.points.dtype == torch.float64
    assert torch.equal(double.points.float(), single.points)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SAMPLERS)
def test_points_are_the_same_on_every_device(name):
    on_gpu = draw(name, Box.centered(2), 1000, device="cuda")
    assert on_gpu.points.is_cuda and on_gpu.weights.is_cuda
    if name != "importance":  # where a density decides, its last bit may differ
        assert torch.equal(on_gpu.points.cpu(), draw(name, Box.centered(2), 1000).points)
