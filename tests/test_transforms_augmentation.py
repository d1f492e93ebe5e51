"""Warps and augmentations are maps of fields: each equals the field asked where the map points, or a closed form."""

import math

import pytest
import torch
from reference_fields import SineField, loop

from inrbridge import FunctionField, stack
from inrbridge.domains import Ball, Box, Product, Region, Sphere, Torus
from inrbridge.errors import ConfigError, OutsideDomain, ShapeMismatch
from inrbridge.transforms import AffineField, NoisyField, WarpField, augmentation
from inrbridge.transforms.returning import check_border, returned

BOX, TORUS = Box((0.0, -1.0), (2.0, 3.0)), Torus((2.0, 4.0))
DOUBLE = {"dtype": torch.float64}


def place(domain, ranges=None):
    """The field whose values are its own coordinates: it tells where it was asked."""
    field = FunctionField(lambda x: x, domain, domain.dim)
    field.channel_ranges = ranges or (None,) * domain.dim
    return field


def inside(n=200, domain=BOX, seed=0):
    return domain.from_unit(torch.rand(n, domain.unit_dim, generator=torch.Generator().manual_seed(seed), **DOUBLE))


def test_coordinates_that_left_come_back():
    x = torch.tensor([[-0.5, 0.0], [2.5, 3.5], [1.0, -6.0], [0.5, 0.5]], **DOUBLE)
    expected = {
        "clamp": [[0, 0], [2, 3], [1, -1], [0.5, 0.5]],
        "reflect": [[0.5, 0], [1.5, 2.5], [1, 2], [0.5, 0.5]],
        "circular": [[1.5, 0], [0.5, -0.5], [1, 2], [0.5, 0.5]],
    }
    for border, wanted in expected.items():
        torch.testing.assert_close(returned(x, BOX, border), torch.tensor(wanted, **DOUBLE))
        BOX.check(returned(10 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0), **DOUBLE), BOX, border))
        assert torch.equal(returned(inside(), BOX, border), inside())
    torch.testing.assert_close(returned(x - 1, TORUS, "clamp"), torch.remainder(x - 1, torch.tensor([2.0, 4.0])))
    for round_domain in (Ball((1.0, 0.0, 0.0), 2.0), Sphere(2.0, (1.0, 0.0, 0.0))):
        out = returned(torch.tensor([[6.0, 0, 0], [1.0, 3, 4]], **DOUBLE), round_domain)
        torch.testing.assert_close(out, torch.tensor([[3.0, 0, 0], [1.0, 1.2, 1.6]], **DOUBLE))
    both = returned(torch.tensor([[-1.0, 2.0, 0.0, 0.0]], **DOUBLE), Product(Box.unit(1), Sphere()), "clamp")
    torch.testing.assert_close(both, torch.tensor([[0.0, 1.0, 0.0, 0.0]], **DOUBLE))


@pytest.mark.parametrize("border", ["clamp", "reflect", "circular"])
def test_the_way_back_is_differentiable(border):
    x = torch.tensor([[-0.3, 0.2], [2.6, 3.9], [1.1, 0.3]], **DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: returned(x, BOX, border), x)


def test_borders_that_a_domain_does_not_have():
    for border, domain in (("reflect", Ball((0.0,))), ("circular", Sphere()), ("clamp", Region(BOX, lambda x: x[..., 0] < 1))):
        with pytest.raises(ConfigError, match="for points that leave"):
            check_border(border, domain)
    with pytest.raises(ConfigError, match='no border mode "mirror"'):
        WarpField(place(BOX), (0, 0), "mirror")


def test_a_warp_asks_the_field_elsewhere():
    field, x = SineField(domain=BOX), inside()
    assert torch.equal(WarpField(field, (0.0, 0.0))(x), field(x))
    moved = WarpField(field, (0.3, -0.2), "circular")
    torch.testing.assert_close(moved(x), field(returned(x + torch.tensor([0.3, -0.2], **DOUBLE), BOX, "circular")))
    swirl = WarpField(field, lambda x: 0.1 * torch.sin(x.flip(-1)), "reflect")
    torch.testing.assert_close(swirl(x), field(returned(x + 0.1 * torch.sin(x.flip(-1)), BOX, "reflect")))
    assert torch.autograd.gradcheck(swirl, inside(4).requires_grad_())
    with pytest.raises(ShapeMismatch, match="one number for each coordinate"):
        WarpField(field, lambda x: x[..., :1])(x)
    with pytest.raises(ShapeMismatch, match="expected 2"):
        WarpField(field, (0.3,))


def test_gradients_reach_the_displacement():
    net = torch.nn.Linear(2, 2, **DOUBLE)
    values = WarpField(SineField(domain=BOX), net)(inside())
    values.square().sum().backward()
    assert float(net.weight.grad.abs().max()) > 0


def test_warped_fields_stack_as_one_group():
    def bend(x):
        return 0.1 * x.flip(-1)

    fields = [WarpField(SineField(domain=BOX, seed=s), bend) for s in range(3)]
    together = stack(fields)
    assert len(together.groups) == 1
    torch.testing.assert_close(together(inside()), loop(fields, inside()))
    other = WarpField(SineField(domain=BOX), lambda x: -x)
    assert len(stack([*fields, other]).groups) == 2


def test_noise_is_drawn_from_its_generator():
    field, x = place(Torus((2.0, 4.0))), inside(4000, Torus((2.0, 4.0)))
    noisy = NoisyField(field, 0.01, torch.Generator().manual_seed(3))
    first, second = noisy(x), noisy(x)
    again = NoisyField(field, 0.01, torch.Generator().manual_seed(3))(x)
    assert torch.equal(first, again) and not torch.equal(first, second)
    middle = ((x > 0.1) & (x < torch.tensor([1.9, 3.9]))).all(1)
    shake = (first - x)[middle]
    assert float(shake.mean().abs()) < 6e-4 and float(shake.std()) == pytest.approx(0.01, rel=0.04)
    assert torch.equal(NoisyField(field, 0.0, torch.Generator())(x), x)
    with pytest.raises(ConfigError, match="0 or more"):
        NoisyField(field, -1.0, torch.Generator())


def test_views_of_a_field():
    field, x = place(BOX), inside()
    centre = torch.tensor([1.0, 1.0], **DOUBLE)
    torch.testing.assert_close(augmentation.flipped(field, [0])(x), x * torch.tensor([-1, 1]) + torch.tensor([2, 0]))
    torch.testing.assert_close(augmentation.scaled(field, 2)(x), centre + (x - centre) / 2)
    torch.testing.assert_close(augmentation.scaled(field, (2, 0.5), "reflect")(x),
                               returned(centre + (x - centre) / torch.tensor([2, 0.5]), BOX, "reflect"))  # fmt: skip
    torch.testing.assert_close(augmentation.shifted(field, (0.5, 0))(x), returned(x - torch.tensor([0.5, 0.0], **DOUBLE), BOX))
    torch.testing.assert_close(augmentation.cropped(field, (0, 1), (1, 3))(x), x * 0.5 + torch.tensor([0, 1.5], **DOUBLE))


def test_a_rotation_turns_what_is_seen():
    """A bump on axis 0 is seen on axis 1 after a quarter turn from axis 0 to axis 1."""
    bump = FunctionField(lambda x: torch.exp(-20 * (x - x.new_tensor([0.5, 0, 0])).square().sum(-1, True)), Box.centered(3), 1)
    turned = augmentation.rotated(bump, math.pi / 2, (0, 1))
    torch.testing.assert_close(turned(torch.tensor([0.0, 0.5, 0.0], **DOUBLE)), torch.ones(1, **DOUBLE))
    x = 0.5 * inside(50, Box.centered(3))
    back = augmentation.rotated(turned, -math.pi / 2, (0, 1))
    torch.testing.assert_close(back(x), bump(x))
    far = augmentation.rotated(bump, 0.4, (2, 1))
    cosine, sine = math.cos(0.4), math.sin(0.4)
    asked = torch.stack([x[:, 0], cosine * x[:, 1] - sine * x[:, 2], sine * x[:, 1] + cosine * x[:, 2]], -1)
    torch.testing.assert_close(far(x), bump(asked))


def test_colours_of_a_field(generator):
    rgb = FunctionField(lambda x: torch.cat([x, x[..., :1] * x[..., 1:]], -1) / 3, BOX, 3)
    rgb.channel_ranges = ((0.0, 1.0),) * 3
    x = inside()
    f = rgb(x)
    torch.testing.assert_close(augmentation.brightened(rgb, 0.2)(x), f + 0.2)
    torch.testing.assert_close(augmentation.contrasted(rgb, 1.5)(x), 0.5 + 1.5 * (f - 0.5))
    torch.testing.assert_close(augmentation.without_channels(rgb, [1])(x), f * torch.tensor([1, 0, 1]))
    grey = (f @ torch.tensor([0.299, 0.587, 0.114], **DOUBLE))[:, None]
    torch.testing.assert_close(augmentation.saturated(rgb, 0.0)(x), grey.expand(-1, 3))
    torch.testing.assert_close(augmentation.saturated(rgb, 1.7)(x), grey + 1.7 * (f - grey))
    jittered = augmentation.random_colours(rgb, generator, brightness=0.1, contrast=0.2, saturation=0.3, drop=0.2)
    again = augmentation.random_colours(
        rgb, torch.Generator().manual_seed(0), brightness=0.1, contrast=0.2, saturation=0.3, drop=0.2
    )
    assert torch.equal(jittered(x), again(x)) and not torch.allclose(jittered(x), f)


def test_random_colours_have_the_amounts_asked_for(generator):
    matrix, offset = augmentation.draw_colours(3, 4000, generator, brightness=0.1)
    assert torch.equal(matrix, torch.eye(3, **DOUBLE).expand(4000, 3, 3)) and 0.09 < offset.abs().max() <= 0.1
    assert torch.equal(offset, offset[:, :1].expand(-1, 3))
    matrix, offset = augmentation.draw_colours(2, 4000, generator, contrast=0.5, middles=[0.5, 0.0])
    f = torch.tensor([0.5, 0.0], **DOUBLE)
    torch.testing.assert_close(matrix @ f + offset, f.expand(4000, 2))  # the middles stay
    assert 0.5 <= matrix.diagonal(dim1=1, dim2=2).min() < 0.51
    matrix, _ = augmentation.draw_colours(2, 4000, generator, drop=0.25)
    assert float((matrix.diagonal(dim1=1, dim2=2) == 0).double().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("dim", [2, 3])
def test_random_views_are_rigid_scaled_and_shifted(dim, generator):
    domain = Box((0.0, -1.0, 0.0)[:dim], (2.0, 3.0, 1.0)[:dim])
    matrix, offset = augmentation.draw_views(domain, 500, generator, rotate=0.7)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(dim, **DOUBLE).expand_as(matrix))
    torch.testing.assert_close(torch.det(matrix), torch.ones(500, **DOUBLE))
    angle = ((matrix.diagonal(dim1=1, dim2=2).sum(1) - (dim - 2)) / 2).clamp(-1, 1).acos()
    assert 0.65 < angle.max() <= 0.7 + 1e-6 and bool((offset == 0).all())
    matrix, offset = augmentation.draw_views(domain, 500, generator, crop=0.5)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], **DOUBLE)] * dim)
    low, high = (torch.tensor(v, **DOUBLE) for v in domain.bounds)
    centre = (low + high) / 2
    seen = centre + (low + corners * (high - low) - centre) @ matrix.mT + offset[:, None]  # (count, corners, d)
    domain.check(seen)
    share = (seen.amax(1) - seen.amin(1)) / (high - low)
    assert 0.5 <= share.min() < 0.52 and 0.98 < share.max() <= 1
    matrix, _ = augmentation.draw_views(domain, 500, generator, flip=[0], scale=0.2)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    assert 0.4 < float((diagonal[:, 0] < 0).double().mean()) < 0.6 and bool((diagonal[:, 1] > 0).all())
    assert 0.8 <= diagonal.abs().min() < 0.81


@pytest.mark.parametrize("border", ["clamp", "reflect", "circular"])
def test_a_random_view_is_the_field_asked_elsewhere(border):
    field, x, amounts = SineField(domain=BOX), inside(), {"rotate": 0.5, "scale": 0.2, "crop": 0.7, "shift": 0.1, "flip": [1]}
    seen = augmentation.random_view(field, torch.Generator().manual_seed(1), border=border, **amounts)
    matrix, offset = augmentation.draw_views(BOX, 1, torch.Generator().manual_seed(1), **amounts)
    centre = torch.tensor([1.0, 1.0], **DOUBLE)
    torch.testing.assert_close(seen(x), field(returned(centre + (x - centre) @ matrix[0].T + offset[0], BOX, border)))
    assert isinstance(seen, AffineField) and stack([seen, field])(x).shape == (2, 200, 1)


def test_views_wrap_on_a_torus(generator):
    field = FunctionField(lambda x: torch.sin(math.pi * x[..., :1]) * torch.cos(math.pi * x[..., 1:] / 2), TORUS, 1)
    x = inside(domain=TORUS)
    moved = augmentation.shifted(field, (0.7, 1.3))
    torch.testing.assert_close(moved(x), field(x - torch.tensor([0.7, 1.3], **DOUBLE)))  # the formula is periodic itself
    seen = augmentation.random_view(field, generator, shift=0.5, flip=[0])
    TORUS.check(seen.map_coords(x))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: augmentation.rotated(place(TORUS), 0.1), ConfigError, "seams"),
        (lambda: augmentation.rotated(place(BOX), 0.1, (0, 0)), ConfigError, "plane"),
        (lambda: augmentation.scaled(place(BOX), 0.0), ConfigError, "above 0"),
        (lambda: augmentation.flipped(place(BOX), [2]), ConfigError, "from 0 to 1"),
        (lambda: augmentation.cropped(place(BOX), (0, 0), (3, 1)), OutsideDomain, "a box inside"),
        (lambda: augmentation.saturated(place(BOX), 0.5), ShapeMismatch, "expected 3"),
        (lambda: augmentation.without_channels(place(BOX), [2]), ConfigError, "to drop"),
        (lambda: augmentation.random_view(place(Sphere()), torch.Generator(), flip=[0]), ConfigError, "Box or a Torus"),
        (lambda: augmentation.random_view(place(Box.unit(1)), torch.Generator(), rotate=0.1), ConfigError, "two dimensions"),
        (lambda: augmentation.random_colours(place(BOX), torch.Generator(), saturation=0.5), ShapeMismatch, "expected 3"),
    ],
)
def test_what_cannot_be_done_is_said(make, error, text):
    with pytest.raises(error, match=text):
        make()
