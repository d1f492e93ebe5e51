"""What the rules of converted nets mean on points that are no pixels: kernels see polynomials exactly, integrals are weighted."""

import math

import pytest
import torch
import torch.nn.functional as F
from reference_conversion import bare
from torch import nn

from inrbridge import Box, Discretization, FunctionField, Torus, convert
from inrbridge.models.converted import Located
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice, sobol, uniform

DOMAIN, RESOLUTION = Box((0.5, -1.0), (1.5, 1.0)), (24, 40)
DOUBLE = {"dtype": torch.float64}
POINTS = {"levels": "points", "reader": "polynomials"}


def terms(points, degree=2):
    """Monomials up to a degree at points (n, d): (n, terms)."""
    d = points.shape[1]
    columns = [torch.ones_like(points[:, 0]), *points.T]
    if degree == 2:
        columns += [points[:, i] * points[:, j] for i in range(d) for j in range(i, d)]
    return torch.stack(columns, 1)


def polynomial(channels, degree, dim):
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(terms(torch.zeros(1, dim), degree).shape[1], channels, generator=generator, **DOUBLE)
    return lambda x: terms(x, degree) @ weights


def crowded(domain, n):
    """Points that crowd towards one corner, with the weights of their density."""
    low, size = (torch.tensor(v, **DOUBLE) for v in (domain.low, domain.lengths))
    unit = (sobol(domain, n, torch.Generator().manual_seed(2), **DOUBLE).points - low) / size
    weights = (0.6 + 0.8 * unit).prod(1)
    warped = 0.6 * unit + 0.4 * unit**2
    return Discretization(low + warped * size, weights * (domain.measure / weights.sum()), domain)


def inside(points, domain, margin):
    low, high = (torch.tensor(v, **DOUBLE) for v in domain.bounds)
    return ((points > low + margin) & (points < high - margin)).all(1)


def assert_same_polynomial(module, points, resolution, margin, degree=2, channels=2):
    """What the network makes of a polynomial on pixels is a polynomial away from the border: it must be the same on points."""
    domain, d = points.domain, len(resolution)
    net = convert(module.double().eval(), domain, resolution, in_channels=channels, **POINTS)
    f = polynomial(channels, degree, d)
    pixels = net._own
    on_pixels = net.features(Sampled(pixels, f(pixels.points)[None]))
    cells = on_pixels.discretization.points
    kept = inside(cells, domain, margin)
    solution = torch.linalg.lstsq(terms(cells[kept], degree), on_pixels.values[0, kept])
    fitted = terms(cells[kept], degree) @ solution.solution
    torch.testing.assert_close(fitted, on_pixels.values[0, kept], atol=1e-7, rtol=1e-7)
    found = net.features(Sampled(points, f(points.points)[None]))
    assert found.discretization.structure is None or len(found.discretization) != len(cells)
    kept = inside(found.discretization.points, domain, margin)
    assert kept.sum() >= 10
    wanted = terms(found.discretization.points[kept], degree) @ solution.solution
    torch.testing.assert_close(found.values[0, kept], wanted, atol=1e-6, rtol=1e-6)


def bilinear_kernel(d, channels=2):
    line = torch.tensor([0.25, 0.75, 0.75, 0.25], **DOUBLE)
    kernel = line
    for _ in range(d - 1):
        kernel = kernel[..., None] * line
    return kernel * torch.eye(channels, **DOUBLE)[(...,) + (None,) * d]


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.gain = function, nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.function(x * self.gain)


LINEAR = {
    "conv": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "conv_stride": lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1),
    "conv_dilated": lambda: nn.Conv2d(2, 3, 3, padding=2, dilation=2, groups=1),
    "conv_groups": lambda: nn.Conv2d(2, 2, 5, padding=2, groups=2),
    "conv_anisotropic": lambda: nn.Conv2d(2, 3, (1, 3), stride=(2, 1), padding=(0, 1)),
    "conv_even": lambda: nn.Conv2d(2, 3, 4, stride=2, padding=1),
    "conv_same_even": lambda: nn.Conv2d(2, 3, 2, padding="same"),
    "conv_valid": lambda: nn.Conv2d(2, 3, 3),
    "patches": lambda: nn.Conv2d(2, 3, 2, stride=2),
    "padded": lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(2, 2, 3)),
    "average": lambda: nn.AvgPool2d(2),
    "average_overlapping": lambda: nn.AvgPool2d(3, 2, 1),
    "slice": lambda: Applied(lambda x: x[:, :, ::2, 1::2]),
    "crop": lambda: Applied(lambda x: F.pad(x[:, :, 2:-2, 4:-4], (0, 0, 0, 0, 1, 1))),
    "skip": lambda: Applied(lambda x: torch.cat([x, x[:, 1:] - x[:, :1]], 1)),
}  # fmt: skip

RAMPS = {
    "bilinear": lambda: Applied(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "bilinear_of_size": lambda: Applied(lambda x: F.interpolate(x, size=(36, 50), mode="bilinear")),
    "up_and_down": lambda: nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")),
    "max": lambda: nn.MaxPool2d(3, 2, 1),
    "max_of_two": lambda: nn.MaxPool2d(2),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((12, 10)),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("make", [lambda domain: sobol(domain, 1024, torch.Generator().manual_seed(1), **DOUBLE),
                                  lambda domain: crowded(domain, 1024)], ids=["sobol", "crowded"])  # fmt: skip
def test_kernels_see_quadratic_fields_as_on_pixels(name, make):
    torch.manual_seed(0)
    assert_same_polynomial(LINEAR[name](), make(DOMAIN), RESOLUTION, margin=0.23)


@pytest.mark.parametrize("name", RAMPS)
def test_pooling_and_upsampling_see_ramps_as_on_pixels_wherever_points_crowd(name):
    assert_same_polynomial(RAMPS[name](), crowded(DOMAIN, 1024), RESOLUTION, margin=0.23, degree=1)


@pytest.mark.parametrize(("dim", "resolution", "n"), [(1, (48,), 48), (3, (8, 8, 8), 512)])
def test_lines_and_volumes(dim, resolution, n):
    torch.manual_seed(0)
    domain, conv = Box((0.0,) * dim, (1.0,) * dim), (nn.Conv1d, None, nn.Conv3d)[dim - 1]
    points = sobol(domain, n, torch.Generator().manual_seed(1), **DOUBLE)
    assert_same_polynomial(conv(2, 3, 3, padding=1), points, resolution, margin=2.2 / resolution[0])
    up = (nn.ConvTranspose1d, None, nn.ConvTranspose3d)[dim - 1](2, 2, 4, 2, 1, bias=False)
    with torch.no_grad():
        up.weight.copy_(bilinear_kernel(dim))
    assert_same_polynomial(up, points, resolution, margin=2.2 / resolution[0], degree=1)


def test_order_1_does_not_see_quadratic_fields():
    """Negative control: it is the reconstruction that reproduces them."""
    torch.manual_seed(0)
    module, points = nn.Conv2d(2, 3, 3, padding=1).double(), sobol(DOMAIN, 1024, torch.Generator().manual_seed(1), **DOUBLE)
    values = polynomial(2, 2, 2)(points.points)[None]
    exact, coarse = (convert(module, DOMAIN, RESOLUTION, order=order, **POINTS) for order in (2, 1))
    kept = inside(points.points, DOMAIN, 0.23)
    difference = (exact.features(Sampled(points, values)).values - coarse.features(Sampled(points, values)).values)[0, kept]
    assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_a_torus_and_circular_padding_have_no_edge(mode):
    """A field and its points moved together around the torus give the same; with an edge they do not."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(c, 2, 3, padding=1, padding_mode=mode) for c in (1, 2))
    module = nn.Sequential(next(layers), nn.Tanh(), next(layers))
    domain = Torus((1.0, 1.0)) if mode == "circular" else Box.unit(2)
    net = convert(module.double().eval(), domain, 16, **POINTS)
    points = bare(lattice(domain, 256, **DOUBLE))
    shift = torch.tensor([0.31, 0.17], **DOUBLE)
    moved = Discretization((points.points + shift) % 1, points.weights, domain)
    values = torch.sin(2 * math.pi * points.points[:, :1] + torch.cos(2 * math.pi * points.points[:, 1:]))[None]
    before, after = (net.features(Sampled(p, values)).values for p in (points, moved))
    assert torch.allclose(before, after, atol=1e-7) == (mode == "circular")


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift, self.attention = nn.Conv2d(1, 4, 1), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = torch.tanh(self.lift(x)).flatten(2).transpose(1, 2)
        return self.attention(x, x, x)[0].mean(1)


INTEGRALS = {
    "mean": lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "batch_norm": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "group_norm": lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "variance": lambda: Applied(lambda x: x.std((2, 3)) + x.norm(dim=(2, 3)) / x.shape[-1]),
    "attention": Attending,
    "scaled_dot_product": lambda: Applied(
        lambda x: (lambda t: F.scaled_dot_product_attention(t, t, t).mean(1))(x.flatten(2).transpose(1, 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGRALS)
@torch.no_grad()
def test_integrals_are_weighted(name):
    """Crowded points give nearly what many even ones give; without their weights they do not."""
    torch.manual_seed(0)
    domain = Box.unit(2)
    net = convert(INTEGRALS[name]().double().train(), domain, 32, in_channels=1, **POINTS)
    field = FunctionField(lambda x: torch.sin(3 * x[..., :1]) + 2 * x[..., 1:] * x[..., :1], domain, 1)
    points = crowded(domain, 2048)
    equal = Discretization(points.points, torch.full_like(points.weights, points.weights.mean()), domain)
    even = lattice(domain, 4096, **DOUBLE)
    truth, weighted, unweighted = (net(Sampled(p, field(p.points)[None])) for p in (even, points, equal))
    assert (weighted - truth).abs().max() < 0.15 * (unweighted - truth).abs().max()
    assert (unweighted - truth).abs().max() > 1e-3


class EveryKind(nn.Module):
    """Small, with smooth rules of every kind."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode="reflect"), nn.BatchNorm2d(2)
        self.up, self.last = nn.ConvTranspose2d(2, 2, 2, 2), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        y = torch.tanh(self.norm(self.first(x)))
        y = torch.cat([self.up(y * y.mean((2, 3), keepdim=True).sigmoid()), x], 1)
        t = F.avg_pool2d(self.last(y).softmax(1), 2).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(t, t, t).mean(1)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_with_respect_to_values_and_weights(training):
    torch.manual_seed(0)
    net = convert(EveryKind().double().train(training), Box.unit(2), 6, **POINTS)
    points = sobol(net.domain, 48, torch.Generator().manual_seed(1), **DOUBLE)
    values = torch.randn(2, 48, 1, **DOUBLE, requires_grad=True)
    names = [name for name, _ in net.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in net.parameters()]
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    assert not net.placement.own_grids

    def run(values, *weights):
        state = dict(zip(names, weights, strict=True)) | {name: value.clone() for name, value in buffers.items()}
        return torch.func.functional_call(net, state, (Sampled(points, values),))

    assert torch.autograd.gradcheck(run, (values, *weights), atol=1e-6)


@torch.no_grad()
def test_it_is_deterministic_and_follows_the_dtype_of_the_net():
    torch.manual_seed(0)
    module = EveryKind().eval()
    field = FunctionField(lambda x: torch.sin(3 * x[..., :1]) * x[..., 1:], Box.unit(2), 1)
    points = uniform(field.domain, 300, torch.Generator().manual_seed(3))
    for dtype in (torch.float32, torch.float64):
        net = convert(module.to(dtype), field.domain, 8, **POINTS)
        first, again = net(field, points), convert(module, field.domain, 8, **POINTS)(field, points)
        assert first.dtype == dtype and torch.equal(first, again)
    single = convert(module.float(), field.domain, 8, **POINTS)(field, points)
    torch.testing.assert_close(single.double(), first, atol=1e-4, rtol=1e-4)
    assert single.dtype == torch.float32


@torch.no_grad()
def test_maps_of_one_pixel_are_plain_and_sit_in_the_middle():
    """A kernel as large as its map has one place, whatever points are given."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 4, stride=2, padding=1), nn.Conv2d(3, 5, 4), nn.Flatten())
    net = convert(module.double().eval(), Box.unit(2), 8, **POINTS)
    field = FunctionField(lambda x: x[..., :1] ** 2 - x[..., 1:], net.domain, 1)
    wanted = module(field(net._own.points).T.reshape(1, 1, 8, 8))
    found = net(field, lattice(net.domain, 256, **DOUBLE))
    assert (found - wanted).abs().max() < 0.1 * wanted.std()
    assert not isinstance(net.run(net.sample(field, lattice(net.domain, 256, **DOUBLE))), Located)


class Attending(nn.Module):
    """Tokens of a map attend to each other; with `looks` the weights are used beside what they give."""

    def __init__(self, looks: bool):
        super().__init__()
        self.lift, self.attention, self.looks = nn.Conv2d(1, 4, 3, 2, 1), nn.MultiheadAttention(4, 2, batch_first=True), looks

    def forward(self, x):
        tokens = self.lift(x).flatten(2).transpose(1, 2)
        out, weights = self.attention(tokens, tokens, tokens)
        return (weights @ out if self.looks else out).mean(1)


@pytest.mark.parametrize("looks", [False, True])
@torch.no_grad()
def test_who_looks_at_attention_weights_needs_the_grid(looks):
    torch.manual_seed(0)
    module, images = Attending(looks).double().eval(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    net = convert(module, Box.centered(2), 8, levels="points")
    assert net.options["own_grids"] == ([[4, 4]] if looks else [])
    assert torch.equal(net(images), module(images))
    points = sobol(net.domain, 100, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert bool(net(Sampled(points, torch.randn(2, 100, 1, dtype=torch.float64))).isfinite().all())
