"""Q1, beyond equality: fields of two kinds that are near give outputs that are near, |T f - T g| <= L ||f - g||.

L is the largest singular value of the derivative of T on the way from f to g, in L2 of the domain, by power iteration.
"""

import math

import pytest
import torch
from reference_fields import SineField

from inrbridge.domains import Box
from inrbridge.models import build_model
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice

BOX, DOUBLE = Box.centered(2), {"dtype": torch.float64}


def fourier_fit(field, features, seed=0):
    """A random Fourier-feature field fitted to another one by least squares: near it, of another kind."""
    generator = torch.Generator().manual_seed(seed)
    frequencies = 2 * torch.randn(2, features, generator=generator, **DOUBLE)

    def encode(x):
        return torch.cat([(x @ frequencies).sin(), (x @ frequencies).cos()], -1)

    x = lattice(BOX, 1024, **DOUBLE).points
    weights = torch.linalg.lstsq(encode(x), field(x).detach()).solution
    return lambda x: encode(x) @ weights


def net_on(source, name):
    options = {"convnet": {"widths": [4, 4], "resolution": 8, "activation": "gelu"}}.get(name, {"widths": [4, 6], "hidden": [6]})
    model = build_model(name, BOX, 1, 3, generator=torch.Generator().manual_seed(0), **options).double().eval()
    return lambda values: model(Sampled(source, values[None, :, None]))[0]


def lipschitz(net, values, weights, rounds=12):
    """Largest singular value of the derivative at values (n,), inputs measured in L2 of the domain."""
    direction = torch.randn(len(values), generator=torch.Generator().manual_seed(1), **DOUBLE)
    for _ in range(rounds):
        unit = direction / (weights @ direction**2).sqrt()
        _, image = torch.autograd.functional.jvp(net, values, unit)  # the derivative, then its adjoint in L2
        _, pulled = torch.autograd.functional.vjp(net, values, image)
        direction = pulled / weights
    return float(image.norm())


@pytest.mark.parametrize("name", ["convnet", "inr-net-2"])
@pytest.mark.parametrize("features", [20, 60])
def test_outputs_of_a_siren_and_of_its_fourier_twin(name, features):
    source = lattice(BOX, 144, **DOUBLE)
    siren = SineField(width=10, omega=2.0)
    f, g = siren(source.points)[:, 0].detach(), fourier_fit(siren, features)(source.points)[:, 0]
    net = net_on(source, name)
    apart = float((source.weights @ (f - g) ** 2).sqrt())
    constant = max(lipschitz(net, f + t * (g - f), source.weights) for t in (0.0, 0.5, 1.0))
    gap = float((net(f) - net(g)).detach().norm())
    assert 0 < gap <= 1.02 * constant * apart, (gap, constant, apart)
    far = -f  # negative control: what is not near is told apart
    assert float((net(f) - net(far)).detach().norm()) > 3 * gap


@pytest.mark.parametrize("name", ["convnet", "inr-net-2"])
def test_equal_bits_give_equal_bits(name):
    """Two fields whose values agree to the last bit give outputs and losses that do."""
    source = lattice(BOX, 144, **DOUBLE)
    net, field = net_on(source, name), SineField(omega=2.0)
    table = {tuple(p.tolist()): v for p, v in zip(source.points, field(source.points)[:, 0].detach(), strict=True)}
    looked_up = torch.stack([table[tuple(p.tolist())] for p in source.points])
    out, again = net(field(source.points)[:, 0].detach()), net(looked_up)
    assert torch.equal(out, again) and math.isfinite(float(out.detach().square().sum()))
    assert torch.equal(out.square().sum(), again.square().sum())
