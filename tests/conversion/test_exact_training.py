"""A training step of a converted net is one of the discrete network: outputs, gradients, running statistics."""

import copy

import pytest
import torch
from discrete import all_families
from reference_conversion import assert_equal, converted, images_of, on_bare_pixels, on_grid

FAMILIES = all_families()
QUICK = ("resnet18_groups", "lenet_max", "densenet", "shufflenet", "convnext_response", "vit_multihead", "mixer", "unet_reflect",
         "deeplab", "super_resolution", "discriminator", "audio", "wavenet")  # fmt: skip


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
def test_a_training_step_is_that_of_the_discrete_network(name):
    factory, channels, resolution = FAMILIES[name]
    module = factory().double().train()
    images = images_of(channels, resolution, fields=3)
    net = converted(module, images)
    assert net.training
    wanted, before = _step(module, module, lambda m: m(images)), _state(module)
    for run in (on_grid, on_bare_pixels):
        found = _step(net, net.network, lambda n, run=run: run(n, images))
        for kind in ("output", "gradient", "buffer"):
            names = [name for name in wanted if name.startswith(kind) and name in found]
            size = max((float(wanted[name].abs().max()) for name in names), default=1.0)
            assert kind != "output" or names
            for each in names:
                assert_equal(found[each], wanted[each], size)
        assert {name for name in wanted if name.startswith("gradient")} <= found.keys()
    assert all(torch.equal(value, before[name]) for name, value in _state(module).items())


def _state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _step(module, network, run) -> dict:
    """Output, gradients and buffers after one step of a copy, dropout seeded."""
    twin = copy.deepcopy(module)
    network = twin if module is network else twin.network
    torch.manual_seed(0)
    output = run(twin)
    output.square().mean().backward()
    found = {f"gradient {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"output": output.detach(), **found, **{f"buffer {name}": b.double() for name, b in network.named_buffers()}}
