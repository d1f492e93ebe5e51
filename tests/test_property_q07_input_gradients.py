"""Q7 [Wang & Golland 2023, eq. 5, 85, 104, theorem 3]: gradients by the input converge, read as what they approximate.

The derivative by one sample is O(1 / N), so its limit is 0 for every layer (Q21). What converges to something: the directional
derivative sum_j dH/df(x_j) psi(x_j) -> dH[f; psi], and dH/df(x_j) over the weight of x_j -> the functional derivative there.
"""

import math

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn import Activation, BasisConv, Conv, GlobalIntegral, InstanceNorm, Linear, MLPConv, Sampled, Sequential
from inrbridge.sampling import get_sampler, lattice, shrunk, sobol

BOX, DOUBLE = Box.centered(2), {"dtype": torch.float64}
SIZES = (64, 256, 1024, 4096)


def field(x):
    """Two smooth channels (n, 2)."""
    a, b = x.unbind(-1)
    return torch.stack([torch.sin(2 * a + b), torch.exp(a * b)], -1)


def bump(x):
    """psi, a fixed smooth direction (n, 2)."""
    a, b = x.unbind(-1)
    return torch.stack([torch.cos(a) * (1 - b**2), a + b**2], -1)


def gradient(functional, source):
    """dH/df(x_j) (n, 2) of H(sampled) -> number."""
    values = field(source.points)[None].requires_grad_()
    return torch.autograd.grad(functional(Sampled(source, values)), values)[0][0]


def energy(sampled):
    """H = int f^2, over both channels; dH[f; psi] = 2 int f psi, and the functional derivative is 2 f."""
    return GlobalIntegral(mean=False)(sampled.with_values(sampled.values**2)).sum()


def whole_net(generator):
    """Three layers with parameters, a normalization with its integrals, and a loss (theorem 3, corollary 5)."""
    layers = Sequential(Linear(2, 5, generator=generator), Activation("tanh"), InstanceNorm(5), Linear(5, 3, generator=generator),
                        Activation("tanh"), GlobalIntegral()).double()  # fmt: skip
    return lambda sampled: (layers(sampled) ** 2).sum()


def gauss_legendre(function, n=60):
    """int over the square, to rounding."""
    nodes, weights = (torch.from_numpy(v) for v in __import__("numpy").polynomial.legendre.leggauss(n))
    return float(weights.repeat_interleave(n) * weights.repeat(n) @ function(torch.cartesian_prod(nodes, nodes)))


def slope(errors):
    x, y = torch.tensor(SIZES, **DOUBLE).log(), torch.tensor(errors, **DOUBLE).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def directional_errors(functional, truth, sampler, draws=12):
    generator, errors = torch.Generator().manual_seed(2), []
    for n in SIZES:
        found = []
        for _ in range(draws):
            source = get_sampler(sampler)(BOX, n, generator, **DOUBLE)
            found.append(float((gradient(functional, source) * bump(source.points)).sum()))
        errors.append(math.sqrt(sum((v - truth) ** 2 for v in found) / draws))
    return errors


@pytest.mark.parametrize(("sampler", "low", "high"), [("sobol", -3, -0.8), ("lattice", -3, -0.8), ("uniform", -0.7, -0.3)])
def test_the_derivative_of_the_energy_in_a_direction(sampler, low, high):
    truth = 2 * gauss_legendre(lambda x: (field(x) * bump(x)).sum(-1))
    errors = directional_errors(energy, truth, sampler)
    assert low <= slope(errors) <= high, errors
    assert errors[-1] < 0.1 * abs(truth)


def finite_difference(functional, n=2**16, tau=1e-4):
    """dH[f; psi] on many points, by the difference of H itself: no autograd."""
    source = sobol(BOX, n, torch.Generator().manual_seed(9), **DOUBLE)
    f, psi = field(source.points), bump(source.points)
    with torch.no_grad():
        plus, minus = (functional(Sampled(source, (f + s * tau * psi)[None])) for s in (1, -1))
    return float((plus - minus) / (2 * tau))


@pytest.mark.parametrize(("sampler", "low", "high"), [("sobol", -3, -0.8), ("uniform", -0.75, -0.25)])
def test_the_derivative_of_a_whole_net_with_its_loss(sampler, low, high, generator):
    net = whole_net(generator)
    errors = directional_errors(net, finite_difference(net), sampler)
    assert low <= slope(errors) <= high, errors


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "shrunk"])
def test_the_functional_derivative_is_the_gradient_over_the_weight(sampler):
    source = get_sampler(sampler)(BOX, 512, **({"weights": "density"} if sampler == "shrunk" else {}), **DOUBLE)
    found = gradient(energy, source) / source.weights[:, None]
    torch.testing.assert_close(found, 2 * field(source.points), rtol=1e-9, atol=1e-9)


def test_negative_control_n_times_the_gradient_is_not_it_on_crowded_points():
    """N dH/df(x_j) serves equal weights alone."""
    source = shrunk(BOX, 512, weights="density", **DOUBLE)
    found = gradient(energy, source) * len(source) / BOX.measure
    assert float((found - 2 * field(source.points)).abs().mean()) > 0.3


def layers(generator, size=1.0):
    made = [Conv(2, 1, 3, spacing=0.15 * size, bias=False, generator=generator),
            BasisConv(2, 1, 3, spacing=0.2 * size, bias=False, generator=generator),
            MLPConv(2, 1, half_width=0.3 * size, bins=16, bias=False, generator=generator)]  # fmt: skip
    return [layer.double() for layer in made]


@pytest.mark.parametrize("which", [1, 2])
def test_of_a_convolution_it_is_the_transposed_kernel_applied(which, generator):
    """H = int g (K * f): the functional derivative by f is K^T g, the convolution of g with the mirrored kernel."""
    layer = layers(generator)[which]
    source = lattice(BOX, 1024, **DOUBLE)
    g = torch.cos(source.points.sum(1))
    values = field(source.points)[None].requires_grad_()
    functional = (source.weights * g) @ layer(Sampled(source, values)).values[0, :, 0]
    found = torch.autograd.grad(functional, values)[0][0] / source.weights[:, None]
    chosen = torch.arange(0, 1024, 97)
    offset = source.points[chosen][:, None] - source.points[None]  # K is asked at x' - x, x' being where f is
    half = torch.tensor([0.3, 0.3], **DOUBLE)
    if which == 1:
        basis = torch.from_numpy(layer.rule.basis.evaluate(offset.reshape(-1, 2).numpy())).reshape(len(chosen), -1, 9)
        kernel = torch.einsum("ijk,ck->ijc", basis, layer.weight.detach()[0].flatten(1)) / layer.rule.basis.scale
    else:
        seeds = torch.tensor(layer.rule.seeds, **DOUBLE)
        nearest = torch.cdist(offset, seeds[None]).argmin(-1)
        kernel = layer.kernel(seeds).detach()[nearest][..., 0] / layer.rule.measure
    inside = (offset.abs() <= half + 1e-9).all(-1)
    expected = torch.einsum("ij,j,j,ijc->ic", inside.double(), source.weights, g, kernel)
    torch.testing.assert_close(found[chosen], expected, rtol=1e-6, atol=1e-8)
    mirrored = torch.einsum("ij,j,j,ijc->ic", inside.double(), source.weights, g, kernel.flip(1))  # negative control
    assert not torch.allclose(found[chosen], mirrored, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_derivatives_of_convolutions_in_a_direction_settle(which, generator):
    layer = layers(generator, 0.6)[which]
    net = Sequential(layer, Activation("tanh"), GlobalIntegral())
    functional = lambda sampled: (net(sampled) ** 2).sum()  # noqa: E731

    def found(n, seed):
        source = sobol(BOX, n, torch.Generator().manual_seed(seed), **DOUBLE)
        return float((gradient(functional, source) * bump(source.points)).sum())

    truth = sum(found(2048, 90 + s) for s in range(3)) / 3
    coarse, fine = (math.sqrt(sum((found(n, s) - truth) ** 2 for s in range(5)) / 5) for n in (64, 1024))
    assert fine < coarse / 3 and fine < 0.15 * abs(truth), (coarse, fine, truth)


def test_negative_control_without_the_weights_it_converges_elsewhere():
    truth = 2 * gauss_legendre(lambda x: (field(x) * bump(x)).sum(-1))
    source = shrunk(BOX, 4096, weights="density", **DOUBLE)
    right = float((gradient(energy, source) * bump(source.points)).sum())
    equal = Discretization(source.points, torch.full_like(source.weights, 4 / 4096), BOX)
    wrong = float((gradient(energy, equal) * bump(source.points)).sum())
    assert abs(right - truth) < 5e-3 * abs(truth) and abs(wrong - truth) > 0.1 * abs(truth)
