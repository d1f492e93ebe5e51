"""Derivatives of fields as fields: against closed forms, own gradients, and in stacks against the plain loop."""

import pytest
import torch
from reference_fields import BatchedSineField, SineField, loop

from inrbridge import FunctionField, stack
from inrbridge.domains import Ball, Box, Region, Sphere, Torus
from inrbridge.errors import CannotAlign, ConfigError, ShapeMismatch
from inrbridge.transforms import (
    AffineField,
    ConcatChannels,
    DerivativeField,
    DivergenceField,
    GradientField,
    HessianField,
    LaplacianField,
    SelectChannels,
)

BOX = Box.centered(2)


def cubic(x):
    """x^2 y and x + y^3."""
    a, b = x.unbind(-1)
    return torch.stack([a**2 * b, a + b**3], -1)


def points(n=7, dim=2, seed=0):
    return 2 * torch.rand(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1


def test_closed_forms_and_the_order_of_channels():
    field, x = FunctionField(cubic, BOX, 2, ("p", "q")), points()
    a, b = x.unbind(-1)
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    gradient = GradientField(field)
    assert gradient.channel_names == ("p_x0", "p_x1", "q_x0", "q_x1") and gradient.domain == BOX
    torch.testing.assert_close(gradient(x), torch.stack([2 * a * b, a**2, one, 3 * b**2], -1))
    torch.testing.assert_close(HessianField(field)(x), torch.stack([2 * b, 2 * a, 2 * a, zero, zero, zero, zero, 6 * b], -1))
    torch.testing.assert_close(LaplacianField(field)(x), torch.stack([2 * b, 6 * b], -1))
    torch.testing.assert_close(DivergenceField(field)(x), (2 * a * b + 3 * b**2)[:, None])
    third = DerivativeField(field, [(2, 1), (0, 0)])
    assert third.channel_names == ("p_x0x0x1", "p", "q_x0x0x1", "q")
    torch.testing.assert_close(third(x), torch.stack([2 * one, a**2 * b, zero, a + b**3], -1))


def test_value_and_derivatives_side_by_side():
    field, x = FunctionField(cubic, BOX, 2), points()
    kept = GradientField(field, keep=True)
    torch.testing.assert_close(kept(x), ConcatChannels([field, GradientField(field)])(x))
    assert kept.channels == 6 and kept.around(field).signature == kept.signature


@pytest.mark.parametrize("make", [GradientField, HessianField, LaplacianField, lambda f: GradientField(f, keep=True)])
@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)])
def test_shapes_and_double_backward(make, shape):
    field = make(SineField(channels=2))
    x = points(12)[: torch.Size(shape[:-1]).numel()].reshape(shape).requires_grad_()
    assert field(x).shape == (*shape[:-1], field.channels)
    assert torch.autograd.gradcheck(field, x)


@pytest.mark.parametrize("kind", [SineField, BatchedSineField])
@pytest.mark.parametrize(
    "make",
    [
        GradientField,
        LaplacianField,
        lambda f: GradientField(f, keep=True),
        lambda f: LaplacianField(GradientField(f)),
        lambda f: GradientField(AffineField(f, BOX, [[0, -0.5], [0.5, 0]], [0.1, 0])),
        lambda f: AffineField(GradientField(f), BOX, [[0, -0.5], [0.5, 0]], [0.1, 0]),
        lambda f: SelectChannels(GradientField(f), [1]),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_a_stack_equals_the_loop(kind, make, own):
    fields = [make(kind(channels=2, seed=s)) for s in range(3)]
    loose = make(FunctionField(cubic, BOX, 2))
    x = points(6)
    x = torch.stack([x, -x, x / 2, x / 3]) if own else x
    together = stack([*fields, loose])
    assert len(together.groups) == 2
    torch.testing.assert_close(together(x), loop([*fields, loose], x))
    small = stack(fields, memory=1)
    torch.testing.assert_close(small(x[:3]), loop(fields, x[:3]))


def test_gradients_reach_coordinates_and_trainable_parameters():
    field, x = SineField(channels=1), points().requires_grad_()
    values = stack([LaplacianField(field)], trainable=True)(x)
    wanted = torch.autograd.grad(values.sum(), [x, *field.parameters()], allow_unused=True)
    direct = torch.autograd.grad(LaplacianField(field)(x).sum(), [x, *field.parameters()], allow_unused=True)
    for got, expected in zip(wanted, direct, strict=True):
        torch.testing.assert_close(got, expected)


def test_they_are_there_without_autograd_too():
    field, x = GradientField(SineField()), points()
    expected = field(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert not field(x).requires_grad
            torch.testing.assert_close(field(x), expected)


def test_no_graph_is_left_where_nobody_asked_for_one():
    plain = FunctionField(cubic, BOX, 2)
    assert not GradientField(plain, keep=True)(points()).requires_grad
    assert GradientField(plain)(points().requires_grad_()).requires_grad
    assert GradientField(SineField())(points()).requires_grad  # of its parameters
    frozen = stack([GradientField(SineField()), GradientField(SineField(seed=1))])
    assert not frozen(points()).requires_grad


def test_a_field_of_its_own_gradient_is_asked():
    class Saddle:
        domain, channels = BOX, 1

        def __call__(self, coords):
            return (coords[..., :1] * coords[..., 1:]).detach()  # autograd would find nothing

        def gradient(self, coords):
            return coords.flip(-1)[..., None, :]

    x = points()
    torch.testing.assert_close(GradientField(Saddle())(x), x.flip(1))
    torch.testing.assert_close(GradientField(Saddle(), keep=True)(x), torch.cat([x.prod(1, keepdim=True), x.flip(1)], 1))


def test_constants_have_no_slope():
    field = FunctionField(lambda x: torch.ones_like(x[..., :1]), BOX, 1)
    assert torch.equal(LaplacianField(field, keep=True)(points()), torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(7, 2))


@pytest.mark.parametrize("domain", [Box.unit(2), Torus((1.0, 1.0)), Ball((0.0, 0.0)), Region(BOX, lambda x: x[..., 0] < 0.5)])
def test_flat_domains_serve(domain):
    x = torch.full((3, 2), 0.25, dtype=torch.float64)
    torch.testing.assert_close(GradientField(FunctionField(lambda x: x.prod(-1, True), domain, 1))(x), x)


def test_what_has_no_derivatives():
    field = FunctionField(cubic, BOX, 2)
    with pytest.raises(CannotAlign, match="curved"):
        GradientField(FunctionField(lambda x: x, Sphere(), 3))
    with pytest.raises(ConfigError, match="multi-indices of 2"):
        DerivativeField(field, [(1, 0, 0)])
    with pytest.raises(ConfigError, match="multi-indices"):
        DerivativeField(field, [])
    with pytest.raises(ShapeMismatch, match="one for each coordinate"):
        DivergenceField(SelectChannels(field, [0]))
