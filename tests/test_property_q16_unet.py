"""Q16, a whole net: the decoder of a U-Net is back on the very points that its encoder left, on every scale and sampler."""

import pytest
import torch
from torch import nn

from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.errors import ShapeMismatch
from inrbridge.models import build_model
from inrbridge.nn import Sampled, concat
from inrbridge.sampling import get_sampler, lattice, points, sampler_names

DOMAINS = [Box.centered(1), Box((0.0, -1.0), (1.0, 3.0)), Box.unit(3), Torus((1.0, 2.0)), Ball((0.0, 0.0), 1.0), Sphere(),
           Region(Box.centered(2), lambda x: x.norm(dim=-1) < 0.8)]  # fmt: skip


def draw(name, domain, generator, n=256):
    if name == "points":
        return points(domain, get_sampler("uniform")(domain, n, generator).points)
    options = {"density": lambda x: 1 + x[..., 0] ** 2} if name == "importance" else {}
    return get_sampler(name)(domain, n, generator, **options)


SETS = [pytest.param(name, domain, id=f"{name}-{type(domain).__name__}{domain.dim}") for domain in DOMAINS
        for name in sampler_names() if name != "grid" or isinstance(domain, Box | Torus)]  # fmt: skip


def unet(domain, generator, **options):
    return build_model("unet", domain, 1, 2, widths=[2, 3, 4], convs=1, resolution=8, generator=generator, **options).eval()


@pytest.mark.parametrize("upsample", ["nearest", "linear"])
@pytest.mark.parametrize(("name", "domain"), SETS)
def test_each_scale_of_the_decoder_is_that_of_the_encoder(name, domain, upsample, generator):
    net, left, met = unet(domain, generator, upsample=upsample), [], []
    for block in net.down:
        block.register_forward_hook(lambda _, args, out: left.append(out))
    for block in net.up:
        block.register_forward_pre_hook(lambda _, args: met.append(args[0]))
    given = draw(name, domain, generator)
    out = net(Sampled(given, given.points[None, :, :1]))
    assert out.discretization is given and out.values.isfinite().all()
    assert len({len(x.discretization) for x in left}) == 3
    for fine, joined in zip(reversed(left[:-1]), met, strict=True):
        assert joined.discretization is fine.discretization
        assert torch.equal(joined.values[..., : fine.channels], fine.values)  # the skip connection itself


def test_negative_control_points_of_another_draw_are_not_joined(generator):
    class Elsewhere(nn.Module):
        def forward(self, sampled, target):
            other = lattice(target.domain, len(target), generator)
            return Sampled(other, sampled.values[:, :1].expand(-1, len(other), -1))

    net = unet(Box.centered(2), generator)
    net.upsample = Elsewhere()
    given = lattice(Box.centered(2), 256, generator)
    with pytest.raises(ShapeMismatch, match="other points to join"):
        net(Sampled(given, given.points[None, :, :1]))


def test_what_comes_back_up_lies_where_it_was(generator):
    """A step in space goes down and up: beside the skip of itself, it differs from it only next to the jump."""
    domain = Box.centered(2)
    for name in ("lattice", "sobol", "grid"):
        net, given = unet(domain, generator), draw(name, domain, generator, 1024)
        step = Sampled(given, (given.points[None, :, :1] > 0.05).float())
        coarse = given.thin(2).thin(2)
        back = net.upsample(Sampled(coarse, (coarse.points[None, :, :1] > 0.05).float()), given)
        joined = concat(step, back).values[0]
        wrong = joined[:, 0] != joined[:, 1]
        assert ((given.points[wrong, 0] - 0.05).abs() < 2 * coarse.spacing).all() and wrong.float().mean() < 0.2
