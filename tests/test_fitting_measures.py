"""How errors of radiance are counted while it is fitted, against a twin that goes number by number."""

import math

import pytest
import torch
from reference_fields import SineField

from inrbridge import Box, FunctionField, Product, Sphere, fit
from inrbridge.errors import UnknownFormat
from inrbridge.fitting.measures import Measure
from inrbridge.plugins import get_format

DOMAIN = Product(Box.centered(3, 2.0), Sphere())  # sides of 4: a path of 1/4
NAMES = ("red", "green", "blue", "sigma")


def measure_of(names):
    field = SineField(dim=6, channels=len(names), domain=DOMAIN)
    field.channel_names = names
    return Measure.of(field)


def twin(values, targets, felt, path):
    """Squares (b, n, 4) of red, green, blue and density, one by one."""
    b, n, _ = values.shape
    found = torch.zeros_like(values)
    for i in range(b):
        opacity = [1 - math.exp(-path * max(float(targets[i, j, 3]), 0)) for j in range(n)]
        mean = max(sum(opacity) / n, 1e-3)
        for j in range(n):
            for k in range(3):
                found[i, j, k] = opacity[j] / mean * float(values[i, j, k] - targets[i, j, k]) ** 2
            found[i, j, 3] = (felt(path * float(values[i, j, 3])) - felt(path * float(targets[i, j, 3]))) ** 2
    return found


def examples():
    draw = torch.Generator().manual_seed(0)
    values, targets = torch.rand(2, 2, 5, 4, dtype=torch.float64, generator=draw).unbind(0)
    scale = torch.tensor([1, 1, 1, 60.0], dtype=torch.float64)
    targets = targets * scale
    targets[1, :3, 3] = 0
    return values * scale - torch.tensor([0, 0, 0, 5.0]), targets  # some densities below 0


def test_radiance_is_counted_as_light_sees_it():
    values, targets = examples()
    measure = measure_of(NAMES)
    assert measure.path == pytest.approx(0.25) and measure == Measure(3, (0, 1, 2), measure.path) and measure.peak == 1
    compressed = twin(values, targets, lambda depth: math.log1p(depth) if depth > 0 else depth, 0.25)
    torch.testing.assert_close(measure.losses(values, targets), compressed)
    opacity = twin(values, targets, lambda depth: 1 - math.exp(-max(depth, 0)), 0.25)
    torch.testing.assert_close(measure.errors(values, targets), opacity)
    assert torch.autograd.gradcheck(lambda v: measure.losses(v, targets), values.requires_grad_())


def test_where_no_matter_is_colour_is_free_and_density_keeps_a_slope():
    targets = torch.tensor([[[0.5, 0.5, 0.5, 0.0]]])
    values = torch.tensor([[[0.0, 1.0, 9.0, 800.0]]], requires_grad=True)
    measure_of(NAMES).losses(values, targets).sum().backward()
    assert values.grad[0, 0, :3].eq(0).all() and float(values.grad[0, 0, 3]) > 1e-3


def test_all_else_is_counted_as_it_is():
    values, targets = examples()
    for names in (("sdf", "red", "green", "blue"), ("0", "1", "2", "3")):
        measure = measure_of(names)
        assert measure.peak is None
        torch.testing.assert_close(measure.losses(values, targets), (values - targets) ** 2)
        torch.testing.assert_close(measure.errors(values, targets), (values - targets) ** 2)


OPTIONS = {"siren": {"width": 32}, "nerf": {"width": 32}, "ngp": {"log2_table": 10}, "plenoxels": {"resolution": 12, "lr": 0.5}}


@pytest.mark.parametrize("format", OPTIONS)
def test_radiance_is_fitted_from_points(format):
    try:
        get_format(format)
    except UnknownFormat:
        pytest.skip(f"{format} is not installed")

    def ball(x):
        inside = (x[..., :3].norm(dim=-1, keepdim=True) < 0.6).to(x.dtype)
        return torch.cat([torch.tensor([0.9, 0.2, 0.4]).to(x).expand(*x.shape[:-1], 3) * inside, 50 * inside], dim=-1)

    signal = FunctionField(ball, Product(Box.centered(3), Sphere()), 4, ("red", "green", "blue", "density"))
    before, after = (fit([signal], format, steps=steps, points=512, **OPTIONS[format])[0] for steps in (0, 60))
    assert after.psnr > max(before.psnr, 10) + 3
    draw = torch.Generator().manual_seed(1)
    x = signal.domain.from_unit(torch.rand(2000, 5, generator=draw))
    values, truth = after(x).detach(), ball(x)
    r = x[:, :3].norm(dim=-1)
    clear = (r - 0.6).abs() > 0.15
    opaque = 1 - torch.exp(-values[:, 3] / 8) > 0.5
    assert float((opaque == (truth[:, 3] > 0))[clear].float().mean()) > 0.85
    assert float((values - truth)[r < 0.4, :3].abs().mean()) < 0.2
