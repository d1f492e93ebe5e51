"""Q10 [Wang & Golland 2023, eq. 7, section 4.3]: what a continuous convolution must obey on any points."""

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn.conv import BasisConv, Conv, MLPConv
from inrbridge.nn.sampled import Sampled
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import build_stencil

DOUBLE = {"dtype": torch.float64}


def layers(generator):
    made = [Conv(2, 3, spacing=0.15, generator=generator), BasisConv(2, 3, spacing=0.15, generator=generator),
            BasisConv(2, 3, spacing=0.15, basis="polynomial", generator=generator),
            MLPConv(2, 3, half_width=0.25, bins=32, generator=generator)]  # fmt: skip
    return [layer.double() for layer in made]


def at(discretization, points, domain=None):
    return Discretization(points, discretization.weights, domain or discretization.domain)


@pytest.mark.parametrize("which", range(4))
def test_translation_of_field_and_points_together(which, generator):
    layer, source = layers(generator)[which], sobol(Box.centered(2), 200, generator, **DOUBLE)
    values = torch.randn(1, 200, 2, generator=generator, **DOUBLE)
    moved = at(source, source.points + 5.0, Box((4.0, 4.0), (6.0, 6.0)))
    torch.testing.assert_close(layer(Sampled(source, values)).values, layer(Sampled(moved, values)).values, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("which", range(4))
def test_linear_in_the_field(which, generator):
    layer, source = layers(generator)[which], sobol(Box.centered(2), 200, generator, **DOUBLE)
    f, g = torch.randn(2, 1, 200, 2, generator=generator, **DOUBLE)
    layer.bias.data.zero_()
    out = [layer(Sampled(source, v)).values for v in (f, g, 2 * f - 3 * g)]
    torch.testing.assert_close(out[2], 2 * out[0] - 3 * out[1])


@pytest.mark.parametrize("which", range(4))
def test_permuted_points_permute_the_output(which, generator):
    layer, source = layers(generator)[which], sobol(Box.centered(2), 200, generator, **DOUBLE)
    values = torch.randn(2, 200, 2, generator=generator, **DOUBLE)
    order = torch.randperm(200, generator=generator)
    shuffled = Discretization(source.points[order], source.weights[order], source.domain)
    torch.testing.assert_close(layer(Sampled(shuffled, values[:, order])).values, layer(Sampled(source, values)).values[:, order])


@pytest.mark.parametrize("which", range(4))
def test_output_anywhere_follows_the_same_formula(which, generator):
    """Asking at other coordinates: outputs at a subset of points agree with the full evaluation there."""
    layer, source = layers(generator)[which], sobol(Box.centered(2), 200, generator, **DOUBLE)
    asked = Discretization(source.points[50:60], torch.full((10,), 0.4, **DOUBLE), source.domain)
    dense = build_stencil(layer.rule, source, asked).dense()
    torch.testing.assert_close(dense, build_stencil(layer.rule, source).dense()[50:60])


def test_bins_converge_to_the_pairwise_kernel(generator):
    """More bins, nearer to evaluating the kernel network once for every pair: the error falls about like bins^(-1/2) in 2-D."""
    source = lattice(Box.centered(2), 1024, generator, **DOUBLE)
    values = torch.sin(3 * source.points)[None]
    offset = source.points[None] - source.points[:, None]
    i, j = (offset.abs() <= 0.25).all(-1).nonzero(as_tuple=True)
    counts = (4, 16, 64, 256, 1024)
    errors = torch.zeros(len(counts), **DOUBLE)
    for _ in range(6):
        layer = MLPConv(2, 3, half_width=0.25, generator=generator).double().requires_grad_(False)
        pair = layer.kernel(offset[i, j]) * (source.weights[j] / layer.rule.measure)[:, None, None]
        exact = torch.zeros(1024, 3, **DOUBLE).index_add_(0, i, torch.einsum("pc,pco->po", values[0, j], pair)) + layer.bias
        for k, bins in enumerate(counts):
            layer.bins = bins
            errors[k] += (layer(Sampled(source, values)).values[0] - exact).square().mean() / exact.square().mean()
    slope = (errors[-1] / errors[0]).log() / (2 * torch.tensor(counts[-1] / counts[0]).log())
    assert slope < -0.35 and errors[-1].sqrt() < 0.05, (slope, errors.sqrt())


def test_an_empty_neighbourhood_is_finite(generator):
    points = torch.tensor([[-0.9, -0.9], [0.9, 0.9], [0.9, -0.9]], **DOUBLE)
    lonely = Discretization(points, torch.full((3,), 4 / 3, **DOUBLE), Box.centered(2))
    for layer in layers(generator):
        with pytest.warns(UserWarning, match="narrower than the spacing"):
            out = layer(Sampled(lonely, torch.ones(1, 3, 2, **DOUBLE)))
        assert out.values.isfinite().all()


@pytest.mark.parametrize("which", range(4))
def test_a_batch_equals_its_fields_alone(which, generator):
    layer = layers(generator)[which]
    source = sobol(Box.centered(2), 200, generator, **DOUBLE)
    values = torch.randn(5, 200, 2, generator=generator, **DOUBLE)
    together = layer(Sampled(source, values)).values
    alone = torch.cat([layer(Sampled(source, v[None])).values for v in values])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("which", range(4))
def test_converges_in_the_number_of_points(which, generator):
    """A fixed kernel in domain units tends to one continuous operator (negative control: a kernel of k neighbours would not)."""
    layer = layers(generator)[which]
    asked = Discretization(torch.tensor([[0.1, 0.2], [-0.3, 0.05]], **DOUBLE), torch.full((2,), 2.0, **DOUBLE), Box.centered(2))
    kernel = layer.kernel(torch.tensor(layer.rule.seeds, **DOUBLE)) if which == 3 else layer.weight.flatten(2).permute(2, 1, 0)

    def outputs(n):
        """Eight randomizations of the points (8, 2, out)."""
        found = []
        for _ in range(8):
            source = lattice(Box.centered(2), n, generator, **DOUBLE)
            field = torch.stack([torch.sin(3 * source.points[:, 0]), source.points.prod(1)], -1)[None]
            found.append(build_stencil(layer.rule, source, asked).apply(field, kernel)[0])
        return torch.stack(found)

    with torch.no_grad():
        truth = outputs(16384).mean(0)
        errors = [float((outputs(n) - truth).square().mean().sqrt() / truth.square().mean().sqrt()) for n in (256, 1024, 4096)]
    assert errors[2] < 0.05 and errors[2] < errors[0] / 4, errors


@pytest.mark.parametrize("which", range(4))
def test_negative_control_points_moved_without_the_field(which, generator):
    """Values that stay while their points are stretched are another field; so are values in another order."""
    layer, source = layers(generator)[which], sobol(Box.centered(2), 200, generator, **DOUBLE)
    values = torch.randn(1, 200, 2, generator=generator, **DOUBLE)
    out = layer(Sampled(source, values)).values
    stretched = at(source, source.points * torch.tensor([1.5, 1.0]), Box((-1.5, -1.0), (1.5, 1.0)))
    order = torch.randperm(200, generator=generator)
    for other in (layer(Sampled(stretched, values)), layer(Sampled(source, values[:, order]))):
        assert float((other.values - out).detach().abs().max()) > 1e-2


@pytest.mark.parametrize("which", range(4))
def test_negative_control_with_an_activation_it_is_not_linear(which, generator):
    layer, source = layers(generator)[which], sobol(Box.centered(2), 200, generator, **DOUBLE)
    f, g = torch.randn(2, 1, 200, 2, generator=generator, **DOUBLE)
    layer.bias.data.zero_()
    out = [layer(Sampled(source, v)).values.tanh() for v in (f, g, 2 * f - 3 * g)]
    assert not torch.allclose(out[2], 2 * out[0] - 3 * out[1], atol=1e-2)
