"""Minibatches of every installed format, and of formats of our own, evaluated as stacks and by the plain loop."""

import copy

import pytest
import torch
from reference_fields import BatchedSineField, SineField, loop

from inrbridge import Box, FunctionField, Product, Sphere, build_field, stack
from inrbridge.data import align
from inrbridge.errors import InrBridgeError
from inrbridge.plugins import registry
from inrbridge.stacking import Group

SPACE = Box.centered(3)
RADIANCE = ("red", "green", "blue", "density")
KINDS = {"plane": (Box.centered(2), 1), "space": (SPACE, 1), "radiance": (Product(SPACE, Sphere()), 4)}
SMALL = {"width": 16, "layers": 2, "shape": 6, "resolution": 6, "log2_table": 8}  # for the formats that know them
SEEN = {  # kind -> where and how its fields are seen through transforms
    "plane": {"domain": Box.unit(2), "axes": (1, "-0"), "crop": ((-0.5, -1.0), (0.5, 0.0))},
    "space": {"domain": Box.unit(3), "axes": (2, 0, 1)},
    "radiance": {"domain": Box.unit(3), "channels": ["red", "gray", "occupancy"], "directions": 3},
}
EACH = 2  # fields of every format


def make_fields(kind, dtype):
    """Two fields of each format that builds such, their parameters moved off the special values of fresh ones."""
    domain, channels = KINDS[kind]
    draw = torch.Generator().manual_seed(0)
    sine = {"dim": domain.dim, "channels": channels, "domain": domain}
    makers = {
        "vmap": lambda: SineField(**sine, seed=int(torch.randint(99, (), generator=draw))),
        "batched": lambda: BatchedSineField(**sine, seed=int(torch.randint(99, (), generator=draw))),
        "function": lambda: FunctionField(lambda x: torch.cos(x[..., :1] * torch.arange(channels).to(x)), domain, channels),
    }
    for format in registry().all():
        options = {
            name: value for name, value in SMALL.items() if "build" in format.abilities() and name in format.options("build")
        }
        makers[format.name] = lambda f=format.name, o=options: build_field(f, domain, channels, generator=draw, **o)
    fields = []
    for make in makers.values():
        try:
            made = [make() for _ in range(EACH)]
        except InrBridgeError:
            continue  # a format that does not live there
        for field in made:
            if isinstance(field, torch.nn.Module):
                field.to(dtype).requires_grad_(False)
                for value in field.parameters():
                    value.add_(0.1 * torch.randn(value.shape, generator=draw).to(dtype))
            if channels == 4:
                field.channel_names = RADIANCE
        fields += made
    return [fields[i] for i in torch.randperm(len(fields), generator=draw)]


def draw_points(domain, n, fields=None, dtype=torch.float64, seed=1):
    shape = (n,) if fields is None else (fields * n,)
    unit = torch.rand(*shape, domain.unit_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = domain.from_unit(unit).to(dtype)
    return points if fields is None else points.reshape(fields, n, domain.dim)


def assert_equal(found, expected):
    size = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_of_all_formats_equals_the_loop(kind, dtype):
    fields = make_fields(kind, dtype)
    seen = [align(field, **SEEN[kind]) for field in fields]
    for each in (fields, seen):
        made = stack(each)
        stacked = [group for group in made.groups if isinstance(group, Group)]
        assert all(len(group.positions) == EACH for group in stacked) and len(made.groups) == len(each) // EACH
        for n in (None, len(each)):
            x = draw_points(made.domain, 33, n, dtype)
            values = made(x)
            assert values.dtype == dtype
            assert_equal(values, loop(each, x))


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_of_a_stack_equal_those_of_the_loop(kind):
    for transformed in (False, True):
        fields = make_fields(kind, torch.float64)
        fields = [align(field, **SEEN[kind]) for field in fields] if transformed else fields
        for n in (None, len(fields)):
            x = draw_points(fields[0].domain, 17, n).requires_grad_()
            (found,) = torch.autograd.grad(stack(fields)(x).sum(), x)
            (expected,) = torch.autograd.grad(loop(fields, x).sum(), x)
            assert_equal(found, expected)


def test_a_stack_in_chunks_of_points_equals_the_loop():
    fields = [align(field, **SEEN["radiance"]) for field in make_fields("radiance", torch.float32)]
    x = draw_points(fields[0].domain, 129, dtype=torch.float32)
    assert_equal(stack(fields, memory=20_000)(x), loop(fields, x))


def test_formats_are_moved_together():
    fields = make_fields("space", torch.float32)
    x = draw_points(SPACE, 20)
    wide = [copy.deepcopy(field).double() if isinstance(field, torch.nn.Module) else field for field in fields]
    assert_equal(stack(fields).to(dtype=torch.float64)(x), loop(wide, x))
