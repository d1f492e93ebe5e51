import pytest
import torch

from inrbridge import FunctionField
from inrbridge.domains import Ball, Box, Product, Sphere
from inrbridge.errors import CannotAlign, ConfigError, NotFinite, OutsideDomain, ShapeMismatch
from inrbridge.field import Field, query
from inrbridge.transforms import (
    AffineField,
    ConcatChannels,
    DivergenceField,
    FixedDirection,
    GradientField,
    IgnoreDirections,
    LaplacianField,
    MapChannels,
    MeanOverDirections,
    MixChannels,
    PermuteAxes,
    RestrictField,
    SelectChannels,
    SliceField,
    WarpField,
    WithOccupancy,
    channel_ranges,
    rescale,
)  # fmt: skip

BOX3 = Box([0, -1, 2], [1, 3, 5])


def coordinates(domain=BOX3, names=("x", "y", "z")):
    """The field whose values are its own coordinates."""
    field = FunctionField(lambda x: x, domain, domain.dim, names[: domain.dim])
    field.channel_ranges = tuple(zip(domain.low, domain.high, strict=True))
    return field


def all_transforms():
    f = coordinates()
    plane = Box([0.2, 0.0], [0.6, 1.0])
    squares = FunctionField(lambda x: x**3, BOX3, 3)
    seen = FunctionField(lambda x: x, Product(BOX3, Sphere(2.0, (1.0, 0.0, 0.0))), 6)
    return [
        AffineField(f, plane, [[1, 0], [0, 2], [0, 0]], [0.1, 0.5, 3.0]),
        rescale(f, Box.centered(3)),
        PermuteAxes(f, (2, 0, 1)),
        SliceField(f, (2, 0), at=(1.0,)),
        RestrictField(f, Ball((0.5, 1.0, 3.5), 0.4)),
        SelectChannels(f, ["z", 0]),
        MapChannels(f, [2, 1, 1], [0, 0, -1]),
        MixChannels(f, [[0.5, 0.5, 0]], ["mean"]),
        PermuteAxes(f, (2, 0, 1), mirrored=(0, 2)),
        PermuteAxes(seen, (1, 0, 2), mirrored=(1,)),
        FixedDirection(seen, (0, 0, -3)),
        MeanOverDirections(seen, 7),
        IgnoreDirections(f),
        WithOccupancy(f, 1, "sdf", ramp=0.5),
        WithOccupancy(f, 2, "density", "alpha", length=0.1),
        AffineField(f, plane, [[3, 0], [0, 2], [0, 0]], [0.1, 0.5, 3.0], "reflect"),
        WarpField(f, (0.4, -0.2, 0.1), "circular"),
        GradientField(squares, keep=True),
        LaplacianField(squares),
        DivergenceField(squares),
    ]


@pytest.mark.parametrize("field", all_transforms(), ids=lambda f: type(f).__name__)
def test_every_transform_is_a_field(field, generator):
    assert isinstance(field, Field) and len(field.channel_names) == len(field.channel_ranges) == field.channels
    unit = torch.rand(20, field.domain.unit_dim, dtype=torch.float64, generator=generator)
    x = field.domain.from_unit(unit)
    values = query(field, x)
    assert values.shape == (20, field.channels) and values.dtype == x.dtype
    torch.testing.assert_close(field(x.reshape(4, 5, -1)), values.reshape(4, 5, -1))
    field.inner.domain.check(field.map_coords(x))
    assert torch.autograd.gradcheck(field, x[:3].clone().requires_grad_())
    again = field.around(field.inner)
    assert again.signature == field.signature and hash(again.signature) == hash(field.signature)
    assert (again.domain, again.channel_names, again.channel_ranges) == (field.domain, field.channel_names, field.channel_ranges)
    torch.testing.assert_close(again(x), values)
    assert type(field).__name__ in repr(field)


def test_signatures_tell_transforms_apart():
    f = coordinates()
    different = [
        *all_transforms(),
        PermuteAxes(f, (1, 0, 2)),
        MapChannels(f, [2, 1, 1], [0, 0, 0]),
        SliceField(f, (2, 0), at=(0.0,)),
    ]
    assert len({(type(t), t.signature) for t in different}) == len(different)


def test_rescale_maps_corners_to_corners():
    field = rescale(coordinates(), Box.centered(3))
    torch.testing.assert_close(field(torch.tensor([[-1.0, -1, -1], [1, 1, 1]])), torch.tensor([[0.0, -1, 2], [1, 3, 5]]))
    f = coordinates()
    assert rescale(f, BOX3) is f
    with pytest.raises(ShapeMismatch, match="SliceField"):
        rescale(f, Box.centered(2))


def test_affine_is_any_matrix():
    turned = AffineField(coordinates(Box.centered(2, 2.0)), Box.centered(2), [[0, -1], [1, 0]], [0.5, 0])
    torch.testing.assert_close(turned(torch.tensor([1.0, 0.0])), torch.tensor([0.5, 1.0]))
    with pytest.raises(ShapeMismatch, match="2 rows"):
        AffineField(coordinates(Box.centered(2)), Box.centered(2), [[1, 0]], [0])
    with pytest.raises(NotFinite):
        AffineField(coordinates(Box.centered(1)), Box.centered(1), [[float("nan")]], [0])


def test_axes_are_told_by_their_old_number():
    permuted = PermuteAxes(coordinates(), (2, 0, 1))
    assert permuted.domain == Box([2, 0, -1], [5, 1, 3])
    torch.testing.assert_close(permuted(torch.tensor([4.0, 0.5, 2.0])), torch.tensor([0.5, 2.0, 4.0]))  # x, y, z
    slice_ = SliceField(coordinates(), (2, 0))
    assert slice_.domain == Box([2, 0], [5, 1]) and slice_.at == (1.0,)  # the middle of y
    torch.testing.assert_close(slice_(torch.tensor([4.0, 0.5])), torch.tensor([0.5, 1.0, 4.0]))
    with pytest.raises(ShapeMismatch, match="each coordinate once"):
        PermuteAxes(coordinates(), (0, 0, 1))
    with pytest.raises(ShapeMismatch, match="distinct"):
        SliceField(coordinates(), (0, 3))
    with pytest.raises(ShapeMismatch, match="held fixed"):
        SliceField(coordinates(), (0,), at=(1.0,))
    with pytest.raises(OutsideDomain, match="within"):
        SliceField(coordinates(), (0, 1), at=(9.0,))
    with pytest.raises(CannotAlign, match="Box"):
        SliceField(FunctionField(lambda x: x, Ball((0.0, 0.0), 1.0), 2), (0,))


def test_channels_by_name_and_number(generator):
    f, x = coordinates(), BOX3.from_unit(torch.rand(5, 3, generator=generator))
    chosen = SelectChannels(f, ["z", "x", 0])
    assert chosen.channel_names == ("z", "x", "x") and chosen.channel_ranges == ((2, 5), (0, 1), (0, 1))
    torch.testing.assert_close(chosen(x), x[:, [2, 0, 0]])
    with pytest.raises(CannotAlign, match='no channel "w"; expected one of: x, y, z'):
        SelectChannels(f, ["w"])
    with pytest.raises(ShapeMismatch):
        SelectChannels(f, [])
    mapped = MapChannels(f, [-1, 1, 2], [0, 1, 0])
    torch.testing.assert_close(mapped(x), x * torch.tensor([-1.0, 1, 2]) + torch.tensor([0.0, 1, 0]))
    assert mapped.channel_ranges == ((-1, 0), (0, 4), (4, 10))
    mixed = MixChannels(f, [[1, 1, 0], [0, 0, 2]], ["sum", "double"])
    torch.testing.assert_close(mixed(x), torch.stack([x[:, 0] + x[:, 1], 2 * x[:, 2]], -1))
    with pytest.raises(ShapeMismatch, match="one for each channel"):
        MapChannels(f, [1], [0])
    with pytest.raises(ShapeMismatch, match="3 numbers"):
        MixChannels(f, [[1, 1]], ["sum"])


def test_fields_side_by_side(generator):
    f, x = coordinates(), BOX3.from_unit(torch.rand(5, 3, generator=generator))
    both = ConcatChannels([SelectChannels(f, ["z"]), f])
    torch.testing.assert_close(both(x), x[:, [2, 0, 1, 2]])
    assert both.channel_names == ("0", "1", "2", "3") and isinstance(both, Field)
    assert ConcatChannels([SelectChannels(f, ["z"]), SelectChannels(f, ["x"])]).channel_names == ("z", "x")
    with pytest.raises(ShapeMismatch, match="one domain"):
        ConcatChannels([f, coordinates(Box.unit(3))])
    with pytest.raises(ShapeMismatch, match="name for each"):
        ConcatChannels([f], names=["x"])


def test_directions_lie_on_their_sphere():
    seen = FunctionField(lambda x: x, Product(BOX3, Sphere(2.0, (1.0, 0.0, 0.0))), 6)
    x = torch.tensor([0.5, 0.5, 3.0])
    assert FixedDirection(seen, (0, 0, -3))(x).tolist() == [0.5, 0.5, 3.0, 1.0, 0.0, -2.0]
    mean = MeanOverDirections(seen, 64)(x)
    torch.testing.assert_close(mean[:3], x)
    torch.testing.assert_close(mean[3:], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)
    turned = PermuteAxes(seen, (2, 0, 1), mirrored=(1,))  # (z, -x, y)
    assert turned.domain == Product(Box([2, 0, -1], [5, 1, 3]), Sphere(2.0, (0.0, 1.0, 0.0)))
    torch.testing.assert_close(turned(torch.tensor([3.0, 0.2, 0.5, 2.0, 1.0, 0.0])), torch.tensor([0.8, 0.5, 3.0, 1.0, 0.0, 2.0]))


def test_directions_and_matter_are_checked():
    with pytest.raises(CannotAlign, match="positions and directions"):
        FixedDirection(coordinates(), (0, 0, 1))
    with pytest.raises(CannotAlign, match="channel 3"):
        WithOccupancy(coordinates(), 3, "sdf")
    with pytest.raises(ConfigError, match="kind of matter"):
        WithOccupancy(coordinates(), 0, "rock")
    with pytest.raises(ShapeMismatch, match="each coordinate once"):
        PermuteAxes(coordinates(), (0, 1, 2), mirrored=(3,))


def test_ranges_are_optional():
    assert channel_ranges(FunctionField(torch.sin, Box.unit(1), 1)) == (None,)
