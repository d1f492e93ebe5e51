"""Q22 [Wang & Golland 2023, eq. 2-3]: integrals of derivatives, from the field itself and from its samples alone.

Truths: closed forms of int |grad f|^2, harmonic functions, the divergence theorem, and translation.
"""

import math

import pytest
import torch
from reference_fields import SineField

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Torus
from inrbridge.field import FunctionField
from inrbridge.nn import ConcatPair, Divergence, GlobalIntegral, Gradient, Laplacian, Linear, Sampled, Sequential
from inrbridge.quadrature import integrate
from inrbridge.sampling import get_sampler, lattice, shrunk, sobol
from inrbridge.transforms import AffineField, DivergenceField, GradientField, LaplacianField, augmentation

BOX, TORUS, DOUBLE = Box.centered(2), Torus((1.0, 2.0)), {"dtype": torch.float64}


def wave(x):
    return torch.sin(2 * x[..., :1] + 3 * x[..., 1:])


def harmonic(x):
    """Re and Im of z^3, and exp(a) sin(b)."""
    a, b = x.unbind(-1)
    return torch.stack([a**3 - 3 * a * b**2, 3 * a**2 * b - b**3, a.exp() * b.sin()], -1)


def stream(x):
    """A vector field whose divergence is 2 a + cos(b)."""
    a, b = x.unbind(-1)
    return torch.stack([a**2 - b, a + b.sin()], -1)


def energy_of(field, source):
    """int |grad f|^2 from the field."""
    return float(source.weights @ GradientField(field)(source.points).square().sum(-1))


# int over [-1, 1]^2 of 13 cos^2(2 a + 3 b) = 26 + 13/2 int cos(4 a + 6 b) = 26 + 26 sin(4) sin(6) / 24
ENERGY = 26 + 26 * math.sin(4) * math.sin(6) / 24


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton", "uniform"])
def test_the_dirichlet_energy_converges_to_its_closed_form(sampler):
    field, errors = FunctionField(wave, BOX, 1), []
    for n in (256, 4096):
        runs = [energy_of(field, get_sampler(sampler)(BOX, n, torch.Generator().manual_seed(s), **DOUBLE)) for s in range(12)]
        errors.append(math.sqrt(sum((run - ENERGY) ** 2 for run in runs) / len(runs)))
    slope = math.log(errors[1] / errors[0]) / math.log(16)
    assert -0.75 <= slope <= -0.3 if sampler == "uniform" else slope <= -0.8, (slope, errors)


def test_the_energy_on_crowded_points_needs_their_weights():
    field = FunctionField(wave, BOX, 1)
    source = shrunk(BOX, 2**14, weights="density", **DOUBLE)
    assert energy_of(field, source) == pytest.approx(ENERGY, rel=2e-3)
    equal = Discretization(source.points, torch.full_like(source.weights, 4 / len(source)), BOX)  # negative control
    assert abs(energy_of(field, equal) - ENERGY) > 0.02 * ENERGY


def test_the_energy_from_samples_alone():
    """Through the layer: a whole net of (2), h(x, f, Df) under the integral."""
    net = Sequential(Gradient(order=3), GlobalIntegral(mean=False))
    errors = []
    for n in (256, 4096):
        source = sobol(BOX, n, **DOUBLE)
        slopes = net[0](Sampled(source, wave(source.points)[None]))
        energy = float(net[1](slopes.with_values(slopes.values**2)).sum())
        errors.append(abs(energy - ENERGY) / ENERGY)
    assert errors[1] < 1e-3 and errors[1] < errors[0] / 8, errors


def test_the_laplacian_of_harmonic_functions_vanishes():
    source = lattice(BOX, 1024, **DOUBLE)
    field = FunctionField(harmonic, BOX, 3)
    assert float(LaplacianField(field)(source.points).abs().max()) < 1e-10
    from_samples = Laplacian()(Sampled(source, harmonic(source.points)[None])).values[0]
    assert float(from_samples[:, :2].abs().max()) < 1e-6  # of degree 3: exact
    assert float(from_samples[:, 2].abs().max()) < 0.05  # in the corners
    other = FunctionField(lambda x: harmonic(x) + x[..., :1] ** 2, BOX, 3)  # negative control
    assert float((LaplacianField(other)(source.points) - 2).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", ["field", "samples"])
def test_the_divergence_theorem(kind):
    """int div F over the square is the flow through its four sides."""
    nodes = torch.linspace(-1, 1, 2001, **DOUBLE)
    one = torch.ones_like(nodes)
    flow = 0.0
    for axis in (0, 1):
        for side in (-1, 1):
            edge = torch.stack([side * one, nodes] if axis == 0 else [nodes, side * one], -1)
            flow += side * float(torch.trapezoid(stream(edge)[:, axis], nodes))
    source = sobol(BOX, 4096, torch.Generator().manual_seed(1), **DOUBLE)
    if kind == "field":
        total = float(integrate(DivergenceField(FunctionField(stream, BOX, 2)), discretization=source))
    else:
        total = float(GlobalIntegral(mean=False)(Divergence()(Sampled(source, stream(source.points)[None]))))
    assert total == pytest.approx(flow, abs=5e-3) and flow == pytest.approx(4 * math.sin(1), abs=1e-4)


def test_on_a_torus_the_divergence_has_no_integral():
    """Nothing flows out of a closed domain; on a box, where edges are cut, something does (negative control)."""

    def field(x):
        a, b = (2 * math.pi * x / x.new_tensor([1.0, 2.0])).unbind(-1)
        return torch.stack([a.sin() + b.cos(), a.cos() * b.sin()], -1)

    source = lattice(TORUS, 1024, torch.Generator().manual_seed(0), **DOUBLE)
    total = GlobalIntegral(mean=False)(Divergence()(Sampled(source, field(source.points)[None])))
    assert float(total.abs()) < 1e-8
    half = sobol(Box((0.0, 0.0), (0.4, 2.0)), 1024, **DOUBLE)
    assert float(GlobalIntegral(mean=False)(Divergence()(Sampled(half, field(half.points)[None]))).abs()) > 0.1


def test_the_gradient_commutes_with_translation_of_the_field():
    field, x = SineField(domain=BOX, channels=2), lattice(Box.centered(2, 0.6), 64, **DOUBLE).points
    move = lambda f: augmentation.shifted(f, (0.3, -0.2))  # noqa: E731
    torch.testing.assert_close(GradientField(move(field))(x), move(GradientField(field))(x), rtol=1e-10, atol=1e-12)
    turned = AffineField(field, BOX, [[0, 0.5], [-0.5, 0]], [0, 0])  # negative control: a turn does not commute
    other = AffineField(GradientField(field), BOX, [[0, 0.5], [-0.5, 0]], [0, 0])
    assert bool((GradientField(turned)(x) - other(x)).abs().max() > 0.1)


@pytest.mark.parametrize("layer", [Gradient(keep=True), Laplacian()])
def test_the_layer_commutes_with_translation_of_field_and_points(layer, generator):
    source = sobol(BOX, 200, generator, **DOUBLE)
    values = torch.randn(1, 200, 2, generator=generator, **DOUBLE)
    moved = Discretization(source.points + 5.0, source.weights, Box((4.0, 4.0), (6.0, 6.0)))
    first, second = (layer(Sampled(d, values)).values for d in (source, moved))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6 * float(first.abs().max()))


def test_shifts_of_a_lattice_on_the_torus_shift_the_derivatives():
    """Translation by a lattice vector permutes the points: the layer commutes with that permutation, exactly."""
    source = lattice(TORUS, 256, **DOUBLE)
    periods = torch.tensor([1.0, 2.0], **DOUBLE)
    move = source.points[7] - source.points[0]
    offset = (source.points + move)[:, None] - source.points[None]
    offset = offset - periods * (offset / periods).round()
    to = offset.norm(dim=2).argmin(1)
    values = torch.randn(1, 256, 1, generator=torch.Generator().manual_seed(0), **DOUBLE)
    out = Gradient()(Sampled(source, values)).values
    torch.testing.assert_close(Gradient()(Sampled(source, values[:, to])).values, out[:, to], rtol=1e-6, atol=1e-6)


def test_a_net_takes_a_field_and_its_gradient_as_channels(generator):
    """[f, grad f] from the field and from its samples give one output, up to the error of the samples."""
    net = Sequential(Linear(3, 4, generator=generator), GlobalIntegral()).double()
    source, field = lattice(BOX, 4096, **DOUBLE), FunctionField(wave, BOX, 1)
    exact = net(Sampled(source, GradientField(field, keep=True)(source.points)[None]))
    samples = Sampled(source, wave(source.points)[None])
    torch.testing.assert_close(net(Gradient(order=3, keep=True)(samples)), exact, rtol=0, atol=2e-3)
    torch.testing.assert_close(ConcatPair(net)(samples, Gradient(order=3)(samples)), exact, rtol=0, atol=2e-3)
