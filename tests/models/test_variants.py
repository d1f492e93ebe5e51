"""The options of the architectures: each variant learns, is built again from its config, and gives fields where it is dense."""

import pytest
import torch
from small_models import DENSE, small, smooth, values

from inrbridge.domains import Box, Sphere, Torus
from inrbridge.field import FunctionField
from inrbridge.models import build_model
from inrbridge.nn import Sampled, use_generator
from inrbridge.sampling import lattice, sobol

BOX = Box.centered(2)
VARIANTS = [
    *((name, option) for name in ("resnet", "unet") for option in (
        {"kernel": "spline"}, {"kernel": "gaussian"}, {"norm": "instance"}, {"norm": "layer"}, {"norm": "none"},
        {"activation": "silu"}, {"border": "renormalize"}, {"order": 1, "neighbors": 8})),
    ("resnet", {"dropout": 0.3}), ("resnet", {"kernel_size": 1}), ("convnext", {"dropout": 0.3}),
    ("convnext", {"strides": [4, 1]}),
    ("unet", {"upsample": "linear"}), ("unet", {"head": 5}), ("unet", {"skip": True}), ("unet", {"stride": 3}),
    ("unet", {"widths": [4]}), ("inr-net-3", {"head": 5, "skip": True}), ("inr-net-5", {"head": 5, "skip": True}),
    ("transformer", {"tokens": "conv"}), ("transformer", {"tokens": "points"}), ("transformer", {"keys": 2}),
    ("transformer", {"tokens": "points", "keys": 16, "dropout": 0.1}), ("transformer", {"tokens": "conv", "patch": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "option"), VARIANTS, ids=str)
@pytest.mark.parametrize("domain", [BOX, Sphere()], ids=lambda d: type(d).__name__)
def test_variants_learn_and_are_built_again(name, option, domain, generator):
    net = small(name, generator, domain, **option).train()
    use_generator(net, generator)
    sampled = smooth(lattice(domain, 256, generator))
    target = torch.randn(values(net, sampled).shape, generator=generator)
    losses = []
    for _ in range(6):
        loss = (values(net, sampled) - target).square().mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, gradient in zip(net.parameters(), gradients, strict=True):
                p -= 0.03 * gradient
    assert losses[-1] < losses[0]
    config = net.eval().config()
    again = build_model(config["name"], domain, 1, 3, **config["options"]).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(values(again, sampled), values(net, sampled))


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("domain", [Box.centered(1), Torus((1.0, 2.0)), Sphere()], ids=lambda d: type(d).__name__)
def test_the_output_of_a_dense_net_is_a_field_on_its_domain(name, domain, generator):
    net = small(name, generator, domain)
    field = FunctionField(lambda x: x[..., :1].sin(), domain, 1)
    points, elsewhere = lattice(domain, 256, generator), sobol(domain, 30, generator)
    output = net(field, points)[0]
    torch.testing.assert_close(output(points.points), net(Sampled(points, field(points.points)[None])).values[0])
    assert output(elsewhere.points).shape == (30, 3) and output(elsewhere.points).isfinite().all()
