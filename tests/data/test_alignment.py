import math

import pytest
import torch

from inrbridge import FunctionField
from inrbridge.data import align
from inrbridge.data.channels import canonical_channels
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus
from inrbridge.errors import CannotAlign, ConfigError
from inrbridge.field import query


def identity(domain, names=None, ranges=None):
    """The field whose values are its coordinates."""
    field = FunctionField(lambda x: x, domain, domain.dim, names)
    field.channel_ranges = ranges
    return field


def colours(names, ranges=None, domain=None):
    values = torch.tensor([0.2, 0.6, 1.0, 0.5])[: len(names)]
    domain = domain or Box.unit(1)
    field = FunctionField(lambda x: values.to(x).expand(*x.shape[:-1], -1), domain, len(names), tuple(names))
    field.channel_ranges = ranges
    return field


def value(field):
    return field(torch.zeros(field.domain.dim)).tolist()


@pytest.mark.parametrize(
    ("own", "domain"),
    [
        (Box.unit(2), Box.centered(2)),
        (Box([0, 0], [1, 2]), Box([5, 1], [6, 9])),
        (Ball((0.0, 0.0), 1.0), Ball((1.0, 2.0), 3.0)),
        (Sphere(), Sphere(2.0, (1.0, 0.0, 0.0))),
        (Torus((1.0, 2.0)), Torus((3.0, 3.0))),
        (Product(Box.unit(1), Sphere()), Product(Box.centered(1), Sphere())),
    ],
    ids=str,
)
def test_domains_of_one_kind_stretch(own, domain, generator):
    field = align(identity(own), domain)
    x = domain.from_unit(torch.rand(50, domain.unit_dim, generator=generator))
    own.check(query(field, x))
    (low, high), (own_low, own_high) = map(torch.tensor, domain.bounds), map(torch.tensor, own.bounds)
    torch.testing.assert_close(field(x), own_low + (x - low) / (high - low) * (own_high - own_low), rtol=1e-4, atol=1e-5)


def is_right(x):
    return x[..., 0] > 0


BALL = Ball((0.0, 0.0, 0.0), 1.0)
PARTS = {"ball": BALL, "sphere": Sphere(0.5), "half box": Region(Box.centered(3), is_right), "half ball": Region(BALL, is_right)}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_smaller_domain_inside_is_cut_out(part):
    field = align(identity(Box.centered(3)), part)
    assert field.domain is part
    x = torch.tensor([[0.5, 0.0, 0.0]])
    torch.testing.assert_close(query(field, x), x)


@pytest.mark.parametrize(
    ("own", "domain", "message"),
    [
        (Box.centered(3), Box.centered(2), r"axes=\(0, 1\)"),
        (Box.centered(2), Box.centered(3), "leave such fields out"),
        (Box.unit(3), Sphere(), "nor contains it"),
        (Ball((0.0, 0.0), 1.0), Box.centered(2), "nor contains it"),
        (Sphere(), Ball((0.0, 0.0, 0.0), 0.5), "nor contains it"),
        (Region(Box.unit(2), lambda x: x[..., 0] > 0.5), Box.unit(2), "nor contains it"),
        (Product(Box.unit(3), Sphere()), Box.unit(3), "6 coordinates, expected 3"),
    ],
    ids=lambda v: None if isinstance(v, str) else type(v).__name__,
)
def test_what_does_not_fit_is_refused(own, domain, message):
    with pytest.raises(CannotAlign, match=message):
        align(identity(own), domain)


def test_axes_choose_order_and_slice():
    x = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(align(identity(Box.unit(2)), Box.unit(2), axes=(1, 0))(x), x.flip(0))
    sliced = align(identity(Box.unit(3)), Box([0, 0], [2, 2]), axes=(2, 0), at=(0.1,))
    torch.testing.assert_close(sliced(2 * x), torch.tensor([0.75, 0.1, 0.25]))
    same = identity(Box.unit(2))
    assert align(same, Box.unit(2), axes=(0, 1)) is same and align(same) is same


def test_colours_and_gray_are_made_of_each_other():
    rgb = colours(["r", "g", "b"])
    assert value(align(rgb, channels="rgb")) == pytest.approx([0.2, 0.6, 1.0])
    assert align(rgb, channels="rgb").channel_names == ("red", "green", "blue")
    assert value(align(rgb, channels="gray")) == pytest.approx([0.299 * 0.2 + 0.587 * 0.6 + 0.114])
    assert value(align(rgb, channels=["blue", "red"])) == pytest.approx([1.0, 0.2])
    assert value(align(colours(["red", "green", "blue", "alpha"]), channels="rgb")) == pytest.approx([0.2, 0.6, 1.0])
    assert value(align(colours(["grey"]), channels="rgb")) == pytest.approx([0.2] * 3)
    with pytest.raises(CannotAlign, match='"alpha" cannot be made'):
        align(rgb, channels="rgba")
    with pytest.raises(CannotAlign, match="sdf, expected gray"):
        align(colours(["sdf"]), channels="gray")
    with pytest.raises(CannotAlign, match="no channel names"):
        align(rgb, channels=[])


SCENES = {
    "sdf": (["sdf"], [-0.2]),
    "occupancy": (["occ"], [0.75]),
    "density": (["sigma"], [3.0]),
    "rgb and density": (["red", "green", "blue", "density"], [0.1, 0.2, 0.3, 3.0]),
    "rgb and sdf": (["red", "green", "blue", "sdf"], [0.1, 0.2, 0.3, -0.2]),
    "alpha": (["alpha"], [0.75]),
}  # fmt: skip
MADE = {"sdf": 0.9, "density": 1 - math.exp(-3.0 * 0.5), "occupancy": 0.75, "alpha": 0.75}  # with length 0.5 and ramp 0.5


@pytest.mark.parametrize("wanted", ["occupancy", "alpha"])
@pytest.mark.parametrize(("names", "values"), SCENES.values(), ids=SCENES)
def test_occupancy_and_alpha_are_made_of_what_says_where_matter_is(names, values, wanted):
    field = FunctionField(
        lambda x: torch.tensor(values).to(x).expand(*x.shape[:-1], -1), Box.centered(3), len(names), tuple(names)
    )
    seen = align(field, channels=[wanted], length=0.5, ramp=0.5)
    source = canonical_channels(names)[-1]
    assert seen.channel_names == (wanted,) and value(seen) == pytest.approx([MADE[source]])
    assert value(align(field, channels=[wanted])) == pytest.approx(
        [{"sdf": 1.0, "density": 1 - math.exp(-3 / 8)}.get(source, 0.75)]
    )
    if len(names) > 1:
        both = align(field, channels=["rgb", wanted, "gray"], length=0.5, ramp=0.5)
        assert value(both) == pytest.approx([0.1, 0.2, 0.3, MADE[source], 0.299 * 0.1 + 0.587 * 0.2 + 0.114 * 0.3])
    kept = align(field, channels=[source, wanted], length=0.5, ramp=0.5)
    assert value(kept) == pytest.approx([values[-1], MADE[source]])


def test_what_no_matter_is_made_of_is_refused():
    for wanted, names in (("sdf", ["density"]), ("density", ["occupancy"]), ("sdf", ["occupancy"]), ("occupancy", ["gray"])):
        with pytest.raises(CannotAlign, match=f'"{wanted}" cannot be made'):
            align(colours(names), channels=[wanted])
    for wrong in ({"length": 0.0}, {"length": -1.0}, {"ramp": -0.1}, {"length": math.nan}):
        with pytest.raises(ConfigError, match="length"):
            align(colours(["density"]), channels="occupancy", **wrong)


def test_length_and_ramp_are_of_the_new_domain():
    ball = FunctionField(lambda x: x.norm(dim=-1, keepdim=True) - 1, Box.centered(3, 2.0), 1, ("sdf",))
    x = torch.tensor([[0.45, 0.0, 0.0], [0.5, 0, 0], [0.55, 0, 0], [0.7, 0, 0]])
    torch.testing.assert_close(align(ball, Box.centered(3), "occupancy", ramp=0.2)(x)[:, 0], torch.tensor([0.75, 0.5, 0.25, 0.0]))
    torch.testing.assert_close(align(ball, Box.centered(3), "occupancy")(x)[:, 0], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    fog = FunctionField(lambda x: torch.full_like(x[..., :1], 2.0), Box.centered(3, 2.0), 1, ("density",))
    expected = 1 - math.exp(-2.0 * 2 * 0.25)  # as far as 0.5 in the field's own units
    assert value(align(fog, Box.centered(3), "occupancy", length=0.25)) == pytest.approx([expected])


def test_occupancy_has_slopes():
    x = (0.9 * torch.rand(5, 3, dtype=torch.float64)).requires_grad_()
    bump = FunctionField(lambda x: 3 * torch.cos(x).prod(-1, keepdim=True), Box.centered(3), 1, ("density",))
    assert torch.autograd.gradcheck(align(bump, channels="occupancy"), x)
    ball = FunctionField(lambda x: x.norm(dim=-1, keepdim=True) - 0.8, Box.centered(3), 1, ("sdf",))
    assert torch.autograd.gradcheck(align(ball, channels="occupancy", ramp=3.0), x)
    (slope,) = torch.autograd.grad(align(ball, channels="occupancy")(x).sum(), x)
    assert slope.eq(0).all()  # a step: none but at the surface


def test_channels_without_names_are_taken_in_order():
    unnamed = colours("012")
    assert align(unnamed, channels="rgb").channel_names == ("red", "green", "blue")
    assert value(align(unnamed, channels="rgb")) == pytest.approx([0.2, 0.6, 1.0])
    assert align(colours(["sdf"]), channels=["0"]).channel_names == ("0",)
    with pytest.raises(CannotAlign):
        align(unnamed, channels="gray")


def test_ranges():
    signed = colours(["red", "green", "blue"], ranges=((-1, 1),) * 3)
    assert value(align(signed, channels="rgb")) == pytest.approx([0.6, 0.8, 1.0])
    gray = align(signed, channels="gray")
    assert value(gray) == pytest.approx([0.299 * 0.6 + 0.587 * 0.8 + 0.114])
    unnamed = colours("012", ranges=((-1, 1),) * 3)
    assert value(align(unnamed, channels="rgb")) == pytest.approx([0.6, 0.8, 1.0])
    assert value(align(unnamed)) == pytest.approx([0.2, 0.6, 1.0])
    percent = colours(["density"], ranges=((0, 100),))
    assert align(percent, channels=["density"]) is percent
    assert value(align(percent, channels=["density"], ranges={"density": (0.0, 1.0)})) == pytest.approx([0.002])
    assert value(align(colours(["density"]), ranges={"density": (0.0, 1.0)})) == pytest.approx([0.2])  # it does not say
    assert align(percent, ranges={"density": (0.0, 1.0)}).channel_ranges == ((0.0, 1.0),)


def test_names_have_one_spelling():
    assert canonical_channels(("R", "Grey", "SDF", "sigma")) == ("red", "gray", "SDF", "density")
    assert canonical_channels("rgba") == ("red", "green", "blue", "alpha")
