"""Law Q2 for layers: each integral a layer takes converges at the rate of its points (Wang & Golland 2023, appendix A).

Slopes of log RMS error over randomizations against log N, the truth from a much larger set. Kernels with a jump at the
edge of their support, or kinks, count as piecewise smooth.
"""

import pytest
import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.nn import AvgPool, BasisConv, GlobalIntegral, InnerProductPair, InstanceNorm, MLPConv, Sampled
from inrbridge.sampling import get_sampler
from inrbridge.stencils import build_stencil

BOX, DOUBLE = Box.centered(2), torch.float64
SIZES = (256, 1024, 4096)
ASKED = Discretization(
    torch.tensor([[0.1, 0.2], [-0.3, 0.05], [0.4, -0.35]], dtype=DOUBLE), torch.full((3,), 4 / 3, dtype=DOUBLE), BOX
)


def field(x):
    return torch.stack([torch.sin(2 * x[:, 0] + x[:, 1]), torch.exp(x[:, 0] * x[:, 1])], -1)[None]


def convolution(layer):
    """Output at fixed queries: K * f there."""

    def output(source):
        kernel = layer.kernel(torch.tensor(layer.rule.seeds, dtype=DOUBLE)) if isinstance(layer, MLPConv) else \
            layer.weight.flatten(2).permute(2, 1, 0)  # fmt: skip
        return build_stencil(layer.rule, source, ASKED).apply(field(source.points), kernel)

    return output


def normalization(source):
    """The statistics that an instance norm takes, read off its affine map at two known values."""
    values = field(source.points)
    out = InstanceNorm(2, affine=False, track_running_stats=False).double()(Sampled(source, values)).values
    scale = (out[:, 1] - out[:, 0]) / (values[:, 1] - values[:, 0])
    return torch.stack([1 / scale, values[:, 0] - out[:, 0] / scale])


def pooled(source):
    return GlobalIntegral()(Sampled(source, field(source.points)))


def paired(source):
    """The inner products of two fields."""
    first = Sampled(source, field(source.points))
    return InnerProductPair()(first, first.with_values(torch.cos(source.points)[None]))


def loss(source):
    """An integral over two fields: the squared distance."""
    return ((field(source.points) - torch.cos(source.points)) ** 2).sum(-1) @ (source.weights / BOX.measure)


def layers():
    generator = torch.Generator().manual_seed(3)
    return {
        "spline": convolution(BasisConv(2, 2, 5, spacing=0.2, generator=generator).double()),
        "polynomial": convolution(BasisConv(2, 2, 5, spacing=0.2, basis="polynomial", generator=generator).double()),
        "MLP": convolution(MLPConv(2, 2, half_width=0.5, bins=8, ball=True, generator=generator).double()),
        "normalization": normalization,
        "global integral": pooled,
        "inner products": paired,
        "loss": loss,
    }


@torch.no_grad()
def slope(output, sampler, scrambles=12):
    generator = torch.Generator().manual_seed(0)

    def draw(kind, n):
        return output(get_sampler(kind)(BOX, n, generator, dtype=DOUBLE))

    truth = torch.stack([draw("sobol", 2**14) for _ in range(8)]).mean(0)
    errors = [torch.stack([draw(sampler, n) - truth for _ in range(scrambles)]).square().mean().sqrt() for n in SIZES]
    return float((errors[-1] / errors[0]).log() / torch.tensor(SIZES[-1] / SIZES[0]).log()), errors


@pytest.mark.parametrize("name", list(layers()))
def test_rate_on_sobol_points(name):
    found, errors = slope(layers()[name], "sobol")
    smooth = name in ("normalization", "global integral", "inner products", "loss")
    bound = -0.8 if smooth else -0.6  # a support ends with a jump: piecewise smooth
    assert found <= bound, (found, errors)


@pytest.mark.parametrize("name", ["spline", "global integral"])
def test_negative_control_independent_points_are_slower(name):
    found, errors = slope(layers()[name], "uniform")
    assert -0.7 <= found <= -0.3, (found, errors)
    assert errors[-1] > 3 * slope(layers()[name], "sobol")[1][-1]


def test_average_pooling_converges_to_the_mean_over_its_window():
    """Of x^2 over a window of side 0.4 that is x^2 + 0.2^2 / 3."""
    pool = AvgPool(0.4)
    errors = []
    for n in (256, 4096):
        source = get_sampler("sobol")(BOX, n, torch.Generator().manual_seed(0), dtype=DOUBLE)
        inside = (source.points.abs() < 0.75).all(1)
        out = pool(Sampled(source, source.points[None] ** 2)).values[0]
        errors.append(float((out - source.points**2 - 0.04 / 3)[inside].norm(dim=1).mean()))
    assert errors[1] < errors[0] / 3, errors
