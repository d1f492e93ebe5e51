"""Fields of one scene, stated on other boxes, in other orders and units, seen with and without directions of view."""

import math

import pytest
import torch
from reference_fields import SineField, loop

from inrbridge import FunctionField, sampling, stack
from inrbridge.data import align
from inrbridge.domains import Ball, Box, Product, Sphere
from inrbridge.errors import CannotAlign, ConfigError
from inrbridge.field import query

BOX = Box.centered(3)
RADIANCE = ("red", "green", "blue", "density")


def lit(x):
    """Colours that depend on place and direction, and a density that depends on the place: (..., 6) -> (..., 4)."""
    place, direction = x[..., :3], x[..., 3:]
    shine = torch.sigmoid(3 * direction[..., 2:] + place)
    return torch.cat([shine, 5 * torch.exp(-4 * place.square().sum(-1, keepdim=True))], dim=-1)


def radiance(half=1.0):
    """The scene `lit` with its coordinates multiplied by `half`, its density per unit of the new length."""

    def field(x):
        values = lit(torch.cat([x[..., :3] / half, x[..., 3:]], dim=-1))
        return values * values.new_tensor([1, 1, 1, 1 / half])

    return FunctionField(field, Product(Box.centered(3, half), Sphere()), 4, RADIANCE)


def ball_sdf(half=1.0, names=("sdf",)):
    return FunctionField(lambda x: x.norm(dim=-1, keepdim=True) - 0.5 * half, Box.centered(3, half), 1, names)


def named(names, domain=BOX):
    """A field whose values are its coordinates, with names for these."""
    field = FunctionField(lambda x: x, domain, domain.dim)
    field.axes = names
    return field


def places(n=40, seed=0):
    return 2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def paired(x, direction):
    return torch.cat([x, torch.tensor(direction, dtype=x.dtype).expand_as(x)], dim=-1)


def test_a_scene_on_another_box_is_the_same_scene():
    x, up = places(), (0.0, 0.0, 1.0)
    for domain in (BOX, Box.unit(3), Product(Box.unit(3), Sphere())):
        a, b = (align(radiance(half), domain, ["red", "density"], directions=up) for half in (1.0, 1.5))
        points = domain.from_unit((places(40) + 1) / 2) if isinstance(domain, Box) else paired((places(40) + 1) / 2, up)
        torch.testing.assert_close(query(a, points), query(b, points), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(align(radiance(1.5), BOX, directions=up)(x), lit(paired(x, up)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("half", [0.25, 1.5])
def test_optical_depth_along_a_segment_does_not_change(half):
    field = align(radiance(half), BOX, "density")
    start, end = torch.tensor([-0.9, 0.3, 0.1], dtype=torch.float64), torch.tensor([0.8, -0.5, 0.6], dtype=torch.float64)
    t = (torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000
    inner = torch.cat([half * (start + t * (end - start)), torch.tensor([[0.0, 0, 1]]).double().expand(4000, 3)], dim=-1)
    own = radiance(half)(inner)[:, 3].mean() * half * (end - start).norm()
    seen = field(start + t * (end - start))[:, 0].mean() * (end - start).norm()
    torch.testing.assert_close(seen, own, rtol=1e-9, atol=0)


def test_a_signed_distance_is_a_length_of_the_new_domain():
    x = places()
    for half in (0.5, 3.0):
        torch.testing.assert_close(align(ball_sdf(half), BOX)(x), ball_sdf()(x), rtol=1e-6, atol=1e-9)
    assert align(ball_sdf(), BOX).channels == 1


def test_a_box_stretched_unevenly_keeps_signs_bounds_and_the_mean_density():
    domain = Box((-2.0, -1.0, -0.5), (2.0, 1.0, 0.5))  # one old unit becomes 2, 1, 1/2 new ones
    seen = align(ball_sdf(), domain, "sdf")
    x = places() * torch.tensor([2.0, 1.0, 0.5])
    torch.testing.assert_close(seen(x), ball_sdf()(x / torch.tensor([2.0, 1.0, 0.5])) / 2)
    slope = torch.autograd.functional.jacobian(lambda y: seen(y).sum(), x)
    assert float(slope.norm(dim=-1).max()) <= 1 + 1e-6  # a bound of the true distance
    constant = FunctionField(lambda y: torch.full_like(y[..., :1], 3.0), BOX, 1, ("density",))
    wide = Box((-2.0, -1.0, -1.0), (2.0, 1.0, 1.0))
    assert float(align(constant, wide)(x[0])) == pytest.approx(3.0 * 2 ** (-1 / 3))


def test_ranges_follow_the_unit():
    field = ball_sdf(2.0)
    field.channel_ranges = ((-1.0, 3.0),)
    assert align(field, BOX).channel_ranges == ((-0.5, 1.5),)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_the_mean_over_directions_is_that_of_a_loop(shape):
    x = places(18)[: math.prod(shape)].reshape(*shape, 3)
    field = align(radiance(), BOX, directions=16)
    chosen = sampling.lattice(Sphere(), 16, dtype=torch.float64).points
    expected = torch.stack([lit(torch.cat([x, d.expand_as(x)], dim=-1)) for d in chosen]).mean(0)
    torch.testing.assert_close(field(x), expected, rtol=1e-9, atol=1e-12)
    assert field(x).shape == (*shape, 4)


def test_the_mean_over_directions_converges():
    x = places(20)
    fine = align(radiance(), BOX, "rgb", directions=4096)(x)
    errors = [float((align(radiance(), BOX, "rgb", directions=m)(x) - fine).abs().max()) for m in (4, 16, 64)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 3e-3


def test_density_asks_one_direction_and_colours_must_say_which():
    asked = []

    class Counting(FunctionField):
        def __call__(self, coords):
            asked.append(coords.shape[0])
            return super().__call__(coords)

    field = Counting(lit, Product(BOX, Sphere()), 4, RADIANCE)
    x = places(10)
    for channels in ("density", ["occupancy"], ["alpha", "density"]):
        for directions in (None, 16, (1.0, 0.0, 0.0)):
            asked.clear()
            align(field, BOX, channels, directions=directions)(x)
            assert asked == [10]
    align(field, BOX, "rgb", directions=16)(x)
    assert asked[-1] == 160
    with pytest.raises(CannotAlign, match=r"direction of view. Pass directions=16.*Product\(domain, Sphere\(\)\)"):
        align(field, BOX, "rgb")
    for wrong in ((0, 0, 0), (1, 0), "up", 1.5, (math.nan, 0, 1)):
        with pytest.raises(ConfigError, match="not all 0"):
            align(field, BOX, "rgb", directions=wrong)
    with pytest.raises(ConfigError, match="whole number"):
        align(field, BOX, "rgb", directions=0)


def test_directions_are_kept_ignored_and_taken_off():
    x = paired(places(), (0.6, 0.0, -0.8))
    kept = align(radiance(1.5), Product(BOX, Sphere()))
    torch.testing.assert_close(query(kept, x), lit(x), rtol=1e-6, atol=1e-9)
    ignored = align(ball_sdf(2.0), Product(BOX, Sphere()))
    assert ignored.domain == Product(BOX, Sphere())
    torch.testing.assert_close(query(ignored, x), ball_sdf()(x[..., :3]), rtol=1e-6, atol=1e-9)
    part = align(radiance(), Ball((0.0, 0.0, 0.0), 0.5), "density")
    torch.testing.assert_close(part(0.2 * places()), lit(paired(0.2 * places(), (0.0, 0.0, 1.0)))[:, 3:])
    assert align(radiance(), directions=4).domain == BOX and align(radiance()).domain == Product(BOX, Sphere())
    inside = Product(Ball((0.0, 0.0, 0.0), 0.5), Sphere())
    assert align(radiance(), inside).domain == inside


def test_a_crop_is_stretched_onto_the_domain():
    crop = ((0.0, -1.0, -1.0), (1.0, 0.0, 0.0))
    x = places()
    inner = 0.5 * x + torch.tensor([0.5, -0.5, -0.5])
    torch.testing.assert_close(align(ball_sdf(), BOX, crop=crop)(x), 2 * ball_sdf()(inner))
    seen = align(radiance(), BOX, crop=crop, directions=(0, 0, 1))(x)
    torch.testing.assert_close(seen, lit(paired(inner, (0.0, 0.0, 1.0))) * torch.tensor([1, 1, 1, 0.5]), rtol=1e-6, atol=1e-9)
    assert align(ball_sdf(), crop=crop).domain == Box(*crop)
    for wrong in (((0, 0, 0), (2, 1, 1)), ((0, 0), (1, 1)), ((1, 1, 1), (0, 0, 0)), (0, 1), 3):
        with pytest.raises(CannotAlign, match="crop"):
            align(ball_sdf(), BOX, crop=wrong)
    with pytest.raises(CannotAlign, match="expected a part of its Box"):
        align(FunctionField(lambda x: x, Sphere(), 3), crop=crop)


def test_axes_are_found_by_name():
    x = places()
    turned = align(named(("z", "y", "x")), BOX, axes=("x", "y", "z"))
    torch.testing.assert_close(turned(x), x.flip(-1))
    assert align(named(("x", "y", "z")), BOX, axes=("X", "y", "z"))(x).equal(x)
    image = align(named(("row", "column"), Box.unit(2)), axes=("x", "y"))
    torch.testing.assert_close(image(x[:, :2]), x[:, :2].flip(-1))
    nameless = FunctionField(lambda x: x, BOX, 3)
    assert align(nameless, axes=("x", "y", "z")) is nameless
    sliced = align(named(("z", "y", "x")), Box.centered(2), axes=("x", "z"), at=(0.25,))
    torch.testing.assert_close(sliced(x[:, :2]), torch.stack([x[:, 1], torch.full_like(x[:, 0], 0.25), x[:, 0]], -1))
    with pytest.raises(CannotAlign, match="the coordinates z, y, x, expected some of them"):
        align(named(("z", "y", "x")), axes=("u", "v", "w"))
    with pytest.raises(CannotAlign, match="3 coordinates without names"):
        align(nameless, axes=("x", "y"))
    for wrong in (3, "xyz", (), (0, 1.5, 2), (-1, 0, 1), ({}, 1, 2)):
        with pytest.raises(CannotAlign, match="expected a list of coordinates"):
            align(nameless, axes=wrong)


def test_axes_run_backwards():
    domain = Box((0.0, 0.0, -1.0), (1.0, 2.0, 1.0))
    x = domain.from_unit((places() + 1) / 2)
    up = align(named(("x", "y", "z"), domain), axes=("x", "-y", "z"))
    torch.testing.assert_close(up(x), torch.stack([x[:, 0], 2 - x[:, 1], x[:, 2]], -1), rtol=1e-6, atol=1e-9)
    both = align(named(None, domain), axes=(2, "-0", 1))
    assert both.domain == Box((-1.0, 0.0, 0.0), (1.0, 1.0, 2.0))
    y = both.domain.from_unit((places() + 1) / 2)
    torch.testing.assert_close(both(y), torch.stack([1 - y[:, 1], y[:, 2], y[:, 0]], -1), rtol=1e-6, atol=1e-9)
    domain.check(both(y))


def test_directions_turn_with_the_axes():
    field = radiance()
    field.axes = ("x", "y", "z")
    turned = align(field, Product(BOX, Sphere()), axes=("z", "-x", "y"))
    x = paired(places(), (0.6, 0.0, -0.8))
    old = torch.stack([-x[:, 1], x[:, 2], x[:, 0], -x[:, 4], x[:, 5], x[:, 3]], -1)
    torch.testing.assert_close(query(turned, x), lit(old), rtol=1e-6, atol=1e-9)
    along = align(field, BOX, axes=("z", "-x", "y"), directions=(1.0, 0.0, 0.0))  # the old z
    torch.testing.assert_close(
        along(x[:, :3]), lit(torch.cat([old[:, :3], torch.eye(3)[2].expand(40, 3)], -1)), rtol=1e-6, atol=1e-9
    )
    plane = align(field, Box.centered(2), "rgb", axes=(0, 1), directions=(0, 0, 1))
    flat = torch.cat([x[:, :2], torch.zeros(40, 1)], -1)
    torch.testing.assert_close(plane(x[:, :2]), lit(paired(flat, (0.0, 0.0, 1.0)))[:, :3], rtol=1e-6, atol=1e-9)


def test_a_stack_of_fields_seen_from_all_sides_equals_the_loop():
    domain = Product(BOX, Sphere())
    inner = [SineField(dim=6, channels=4, seed=i, domain=domain) for i in range(3)]
    fields = [align(f, Box.unit(3), directions=5) for f in inner]
    for memory in (2**29, 4000):
        made = stack(fields, memory=memory)
        assert len(made.groups) == 1
        for x in (places(9) / 2 + 0.5, (places(27) / 2 + 0.5).reshape(3, 9, 3), places(9)[:0]):
            torch.testing.assert_close(made(x), loop(fields, x), rtol=1e-9, atol=1e-11)
    x = (places(4) / 2 + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: stack(fields, memory=4000)(y, check=False), x)
