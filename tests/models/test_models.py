"""Architectures by name: what they take, what they return, how they are built again."""

import json

import pytest
import torch
from small_models import CLASSIFIERS, DENSE, SMALL, small
from torch import nn

from inrbridge.domains import Box, domain_from_config
from inrbridge.errors import ConfigError, ShapeMismatch, UnknownName
from inrbridge.field import FunctionField
from inrbridge.grid import GridField
from inrbridge.models import INRNet, build_model, model_class, model_names, model_options
from inrbridge.nn import GlobalIntegral, Sampled
from inrbridge.sampling import lattice
from inrbridge.stacking import stack

BOX = Box.centered(2)


class Mean(INRNet):
    """A user's own net: the mean of the field, mixed."""

    name = "mean"

    def __init__(self, domain, in_channels, classes, *, points: int = 16, generator=None):
        super().__init__(domain, in_channels, classes, points, {"points": points})
        self.head = nn.Linear(in_channels, classes)

    def compute(self, sampled):
        return self.head(GlobalIntegral()(sampled))


def fields(generator):
    return [GridField(torch.randn(6, 6, 1, generator=generator), BOX), FunctionField(lambda x: x[..., :1].sin(), BOX, 1),
            GridField(torch.randn(6, 6, 1, generator=generator), BOX)]  # fmt: skip


def answer(net, *args):
    """What a net says of fields: a tensor, or the values of its output field where it saw them."""
    out = net(*args)
    if isinstance(out, Sampled):
        return out.values
    points = args[1] if len(args) > 1 else net.own_discretization()
    return out if isinstance(out, torch.Tensor) else out(points.points)


def test_every_listed_model_is_tried_here():
    # those that generate have tests of their own
    assert {name for name in model_names() if model_class(name).kind != "generation"} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_fields_lists_stacks_and_samples_give_one_answer(name, generator):
    net, several = small(name, generator, BOX), fields(generator)
    points = lattice(BOX, 64, generator)
    expected = answer(net, several, points)
    assert expected.shape == ((3, 64, 3) if name in DENSE else (3, 3))
    torch.testing.assert_close(answer(net, stack(several), points), expected)
    torch.testing.assert_close(answer(net, Sampled(points, stack(several)(points.points))), expected)
    for field, row in zip(several, expected, strict=True):
        torch.testing.assert_close(answer(net, field, points), row[None], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_predictions_are_deterministic_and_use_the_nets_own_points(name, generator):
    """Q25: without a discretization the net takes its own, the same at every call."""
    net, several = small(name, generator, BOX), fields(generator)
    assert torch.equal(answer(net, several), answer(net, several))
    assert len(net.own_discretization()) == 64


@pytest.mark.parametrize("name", SMALL)
def test_built_again_from_its_config(name, generator):
    net = small(name, generator, BOX)
    config = json.loads(json.dumps(net.config()))
    again = build_model(
        config["name"], domain_from_config(config["domain"]), config["in_channels"], config["classes"], **config["options"]
    )
    again.load_state_dict(net.state_dict())
    several = fields(generator)
    assert torch.equal(answer(again.eval(), several), answer(net, several)) and again.config() == net.config()


@pytest.mark.parametrize("name", SMALL)
def test_built_without_weights_as_a_folder_is_checked_before_it_is_loaded(name):
    options = {"resample": "sobol"} if "resample" in model_options(name) else {}
    with torch.device("meta"):
        net = small(name, None, BOX, **options)
    assert all(p.is_meta for p in net.parameters())
    assert not net.own_discretization().points.is_meta or not options


@pytest.mark.parametrize("name", SMALL)
def test_the_config_holds_every_option(name, generator):
    assert set(small(name, generator, BOX).options) == set(model_options(name))


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_weights_and_nothing_else_is_drawn_from(name):
    a = small(name, torch.Generator().manual_seed(4), BOX)
    torch.manual_seed(11)  # nothing is taken from torch's own source
    b = small(name, torch.Generator().manual_seed(4), BOX)
    assert {*a.state_dict()} == {*b.state_dict()}
    for (key, value), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    other = small(name, torch.Generator().manual_seed(5), BOX)
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), other.parameters(), strict=True))


VARIANTS = [{"kernel": "spline"}, {"kernel": "polynomial"}, {"kernel": "gaussian"}, {"norm": "instance"}, {"norm": "none"},
            {"norm": "layer"}, {"border": "circular"}, {"activation": "gelu"}]  # fmt: skip


@pytest.mark.parametrize("option", VARIANTS)
def test_variants_of_the_convnet(option, generator):
    net = build_model("convnet", BOX, 1, 3, generator=generator, **CLASSIFIERS["convnet"], **option)
    assert net(fields(generator)).isfinite().all()


def test_double_precision_follows_the_net(generator):
    assert small("convnet", generator, BOX).double()(fields(generator)).dtype == torch.float64


def test_a_users_own_net():
    net = build_model(f"{__name__}:Mean", BOX, 1, 3, points=8) if "." not in __name__ else Mean(BOX, 1, 3, points=8)
    assert net(FunctionField(lambda x: x[..., :1], BOX, 1)).shape == (1, 3)


def test_wrong_requests_say_what_to_do(generator):
    with pytest.raises(UnknownName, match=r'model "convnett".*Did you mean "convnet"'):
        build_model("convnett", BOX, 1, 3)
    with pytest.raises(ConfigError, match=r'no option "width".*Did you mean "widths"'):
        build_model("convnet", BOX, 1, 3, width=[4])
    with pytest.raises(ConfigError, match="2 widths and 1 strides"):
        build_model("convnet", BOX, 1, 3, widths=[4, 4], strides=[1])
    with pytest.raises(ConfigError, match='norm "bach"'):
        build_model("convnet", BOX, 1, 3, norm="bach")
    with pytest.raises(ConfigError, match="installed package"):
        build_model("no_such_package:Net", BOX, 1, 3)
    with pytest.raises(ConfigError, match="no subclass"):
        build_model("torch.nn:Linear", BOX, 1, 3)
    net = small("convnet", generator, BOX)
    with pytest.raises(ShapeMismatch, match="Got fields of 2 channels, expected 1"):
        net(FunctionField(lambda x: x, BOX, 2))
    with pytest.raises(ShapeMismatch, match="align them first"):
        net(FunctionField(lambda x: x[..., :1], Box.centered(3), 1))
    assert "widths" in model_options("convnet")
