"""Learned functions: they are fields, modulate, aggregate and decode; every one equals its slow twin."""

import pytest
import torch
from reference_rules import DOUBLE, crowded, shuffled

from inrbridge.domains import Ball, Box, Product, Sphere, Torus
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.field import Field
from inrbridge.nn import (
    BasisFunction,
    Decode,
    InnerProduct,
    MLPFunction,
    Modulate,
    Sampled,
    Shift,
    SplineBasis,
    basis_for,
    parametric,
)
from inrbridge.sampling import grid, sobol

DOMAINS = [Box((0.0, 1.0), (2.0, 4.0)), Ball((1.0, 0.0, 3.0), 2.0), Sphere(), Torus((1.0, 3.0)), Product(Torus((1.0,)), Sphere())]
each_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: type(d).__name__)
each_kind = pytest.mark.parametrize("hidden", [None, (8, 8)], ids=["basis", "MLP"])


def sampled(domain, generator, channels=3, n=40, fields=2):
    return Sampled(crowded(domain, n), torch.randn(fields, n, channels, generator=generator, dtype=DOUBLE))


@each_domain
@each_kind
def test_a_function_is_a_field_and_its_values_on_points_are_those_of_the_field(domain, hidden, generator):
    function = parametric(domain, 4, hidden=hidden, generator=generator).double()
    assert isinstance(function, Field)
    source = sobol(domain, 32, dtype=DOUBLE)
    torch.testing.assert_close(function.at(source, source.points), function(source.points))
    assert function(source.points.view(4, 8, -1)).shape == (4, 8, 4)


def test_initial_functions_have_the_size_asked_for():
    function = BasisFunction(basis_for(Sphere(), 6), 400, scale=0.5, generator=torch.Generator().manual_seed(0))
    source = sobol(Sphere(), 2048)
    sizes = function.at(source, source.points).square().mean(0)  # the mean square over the sphere
    assert float(sizes.mean().sqrt().detach()) == pytest.approx(0.5, rel=0.03)


@each_kind
def test_initial_weights_come_from_the_generator_alone(hidden):
    def draw(seed):
        return parametric(Sphere(), 3, hidden=hidden, generator=torch.Generator().manual_seed(seed)).state_dict()

    torch.manual_seed(1)
    first = draw(0)
    torch.manual_seed(2)
    for (_, a), (_, b), (_, c) in zip(first.items(), draw(0).items(), draw(1).items(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_function_on_a_torus_has_no_seam(generator):
    for hidden in (None, (8,)):
        function = parametric(Torus((1.0, 3.0)), 2, hidden=hidden, generator=generator).double()
        edge = torch.tensor([[0.0, 0.7], [0.4, 0.0]], dtype=DOUBLE)
        torch.testing.assert_close(function(edge), function(torch.tensor([[1.0, 0.7], [0.4, 3.0]], dtype=DOUBLE)))


@each_domain
@each_kind
def test_inner_products_equal_the_sum_over_points(domain, hidden, generator):
    field = sampled(domain, generator)
    function = parametric(domain, 12, hidden=hidden, generator=generator).double()
    layer = InnerProduct(3, function)
    weights, values = field.weights, function(field.discretization.points)
    expected = torch.zeros(2, 4, dtype=DOUBLE)
    for i in range(3):
        for j in range(4):
            expected[:, j] += (weights * field.values[:, :, i] * values[:, i * 4 + j]).sum(1)
    assert layer.out_features == 4
    torch.testing.assert_close(layer(field), expected)
    points, order = shuffled(field.discretization)
    torch.testing.assert_close(layer(Sampled(points, field.values[:, order])), expected)
    torch.testing.assert_close(layer(field.with_values(field.values[1:])), expected[1:])


@each_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_modulation_multiplies_pointwise(channels, hidden, generator):
    field = sampled(Sphere(), generator)
    function = parametric(Sphere(), channels, hidden=hidden, generator=generator).double()
    out = Modulate(function)(field)
    torch.testing.assert_close(out.values, field.values * function(field.discretization.points))
    assert out.discretization is field.discretization


@each_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_shifts_add_pointwise(channels, hidden, generator):
    field = sampled(Sphere(), generator)
    function = parametric(Sphere(), channels, hidden=hidden, generator=generator).double()
    torch.testing.assert_close(Shift(function)(field).values, field.values + function(field.discretization.points))


def test_a_surface_goes_through_its_values(generator):
    values, box = torch.randn(3, 4, 5, generator=generator, dtype=DOUBLE), Box((0.0, 1.0), (2.0, 4.0))
    function = BasisFunction.through(values, box)
    on_cells = function.at(grid(box, (4, 5), dtype=DOUBLE), values)
    torch.testing.assert_close(on_cells, values.flatten(1).T)
    nearest = BasisFunction.through(values, box, order=0)  # a table, looked up
    places = sobol(box, 100, dtype=DOUBLE).points
    cell = ((places - torch.tensor([0.0, 1.0])) / torch.tensor([0.5, 0.6], dtype=DOUBLE)).long()
    torch.testing.assert_close(nearest(places), values[:, cell[:, 0], cell[:, 1]].T)
    with pytest.raises(ShapeMismatch, match="2 axes of cells"):
        BasisFunction.through(values[0], box)


@pytest.mark.parametrize("features", [None, 5])
def test_decode_evaluates_the_basis(features, generator):
    basis = basis_for(Sphere(), 2)
    layer = Decode(basis, 3, features, generator=generator).double()
    vector = torch.randn(2, layer.features, generator=generator, dtype=DOUBLE)
    source = sobol(Sphere(), 16, dtype=DOUBLE)
    coefficients = vector if features is None else vector @ layer.mix.weight.T + layer.mix.bias
    expected = torch.zeros(2, 16, 3, dtype=DOUBLE)
    for channel in range(3):
        for k in range(9):
            expected[:, :, channel] += coefficients[:, channel * 9 + k, None] * basis(source.points)[:, k]
    assert layer.features == (27 if features is None else 5)
    torch.testing.assert_close(layer(vector, source).values, expected)
    torch.testing.assert_close(layer(vector[1:], source).values, expected[1:])


@each_kind
def test_gradients(hidden, generator):
    field = sampled(Sphere(), generator, n=6)
    product = InnerProduct(3, parametric(Sphere(), 6, degree=1, hidden=hidden and (3,), generator=generator).double())
    modulate = Modulate(parametric(Sphere(), 3, degree=1, hidden=hidden and (3,), generator=generator).double())

    shift = Shift(parametric(Sphere(), 1, degree=1, hidden=hidden and (3,), generator=generator).double())

    def each(values, *_):
        return (
            product(field.with_values(values)),
            modulate(field.with_values(values)).values,
            shift(field.with_values(values)).values,
        )

    inputs = (field.values.requires_grad_(), *product.parameters(), *modulate.parameters(), *shift.parameters())
    assert torch.autograd.gradcheck(each, inputs)


def test_gradients_of_decode(generator):
    layer = Decode(basis_for(Sphere(), 1), 2, 3, generator=generator).double()
    source = sobol(Sphere(), 5, dtype=DOUBLE)
    vector = torch.randn(2, 3, generator=generator, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, *_: layer(v, source).values, (vector, *layer.parameters()))


def test_spline_coefficients_make_a_function_too(generator):
    function = BasisFunction(SplineBasis(Box.unit(1), (5,)), 2, generator=generator)
    centres = (torch.arange(5.0) + 0.5)[:, None] / 5
    torch.testing.assert_close(function(centres), function.coefficients.T, rtol=0, atol=1e-6)


def test_errors(generator):
    field = sampled(Sphere(), generator)
    with pytest.raises(ConfigError, match="expected a multiple"):
        InnerProduct(5, parametric(Sphere(), 12))
    with pytest.raises(ShapeMismatch, match="Got 3 channels in InnerProduct"):
        InnerProduct(4, parametric(Sphere(), 12))(field)
    with pytest.raises(ShapeMismatch, match="Got 3 channels in a Modulate by 2 functions"):
        Modulate(parametric(Sphere(), 2))(field)
    with pytest.raises(ShapeMismatch, match="Got 3 channels in a Shift by 2 functions"):
        Shift(parametric(Sphere(), 2))(field)
    with pytest.raises(ShapeMismatch, match="give both one domain"):
        Modulate(MLPFunction(Box.unit(2), 1))(field)
    with pytest.raises(ShapeMismatch, match="give both one domain"):
        InnerProduct(3, parametric(Box.unit(2), 3))(field)
    with pytest.raises(ShapeMismatch, match="features=4"):
        Decode(basis_for(Sphere(), 1), 2, 3)(torch.zeros(1, 4), field.discretization)
    with pytest.raises(ShapeMismatch, match="give both one domain"):
        Decode(basis_for(Box.unit(2), 1), 2)(torch.zeros(1, 6), field.discretization)
