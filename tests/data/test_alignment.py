import pytest
import torch

from inrbridge import FunctionField
from inrbridge.data import align
from inrbridge.data.alignment import canonical_channels
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus
from inrbridge.errors import CannotAlign
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
