import pytest
import torch
from reference_fields import interpolate, loop

from inrbridge import FunctionField, GridField, open_field, save_field, stack
from inrbridge.compiled import building
from inrbridge.domains import Ball, Box
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.grid import GridFormat
from inrbridge.io import build_field, identify

SHAPES = [(7,), (5, 6), (4, 3, 5), (3, 4, 2, 3)]


def make(shape, interpolation, align_corners, generator, channels=2, dtype=torch.float64):
    domain = Box([-1.0 * i for i in range(len(shape))], [i + 0.5 for i in range(1, len(shape) + 1)])
    samples = torch.rand(*shape, channels, dtype=dtype, generator=generator)
    return GridField(samples, domain, interpolation=interpolation, align_corners=align_corners)


def inside(domain, n, generator):
    unit = torch.rand(n, domain.dim, dtype=torch.float64, generator=generator)
    return domain.from_unit(unit)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("shape", SHAPES)
def test_interpolation(shape, interpolation, align_corners, generator):
    field = make(shape, interpolation, align_corners, generator)
    at_samples = field(field.grid_points())
    torch.testing.assert_close(at_samples, field.samples.reshape(-1, 2), rtol=1e-12, atol=1e-12)
    corners = torch.tensor([field.domain.low, field.domain.high], dtype=torch.float64)
    x = torch.cat([inside(field.domain, 12, generator), corners])
    expected = [interpolate(field.samples, field.domain, p, interpolation, align_corners) for p in x]
    torch.testing.assert_close(field(x), torch.stack(expected), rtol=1e-12, atol=1e-12)
    x.requires_grad_()
    torch.testing.assert_close(field(x).detach(), torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(field, x[:4].detach().requires_grad_())


def test_linear_agrees_with_grid_sample(generator):
    samples = torch.rand(9, 7, 3, generator=generator)
    field = GridField(samples, Box.centered(2), interpolation="linear")
    x = torch.rand(50, 2, generator=generator) * 2 - 1
    image = samples.permute(2, 0, 1)[None]
    expected = torch.nn.functional.grid_sample(image, x.flip(-1)[None, None], padding_mode="border", align_corners=False)
    torch.testing.assert_close(field(x), expected[0, :, 0].T, rtol=1e-5, atol=1e-6)


def test_cubic_is_exact_for_quadratics_away_from_the_border(generator):
    def quadratic(x):
        return (x[..., :1] ** 2 - 3 * x[..., :1] * x[..., 1:] + x[..., 1:] + 1).repeat_interleave(2, -1)

    signal = FunctionField(quadratic, Box.centered(2), 2)
    field = GridFormat().sample(signal, Box.centered(2), 2, shape=(20, 24))
    x = inside(Box.centered(2, 0.8), 40, generator).float()
    torch.testing.assert_close(field(x), quadratic(x), rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_a_cubic(generator):
    field = make((6, 7), "cubic", False, generator, channels=1)
    assert torch.autograd.gradgradcheck(field, inside(field.domain, 3, generator).requires_grad_())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_stack_of_grids_equals_the_loop(shape, interpolation, generator):
    fields = [make(shape, interpolation, False, generator) for _ in range(3)]
    shared, own = inside(fields[0].domain, 20, generator), inside(fields[0].domain, 60, generator).reshape(3, 20, -1)
    for x in (shared, own):
        made = stack(fields)
        assert len(made.groups) == 1
        torch.testing.assert_close(made(x), loop(fields, x), rtol=1e-12, atol=1e-12)
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(made(x).square().sum(), x)
        (expected,) = torch.autograd.grad(loop(fields, x).square().sum(), x)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_chunks_of_the_stencil_change_nothing(generator, monkeypatch):
    fields = [make((5, 6), "cubic", False, generator) for _ in range(3)]
    shared, own = inside(fields[0].domain, 50, generator), inside(fields[0].domain, 150, generator).reshape(3, 50, -1)
    expected = [stack(fields)(shared), stack(fields)(own)]
    monkeypatch.setattr("inrbridge.grid.CHUNK", 7 * 16)
    torch.testing.assert_close([stack(fields)(shared), stack(fields)(own)], expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 9)])
@pytest.mark.parametrize("channels", [2, 5])
def test_every_path_gives_the_same(shape, channels, interpolation, align_corners, generator, monkeypatch):
    """Compiled kernels, torch's own interpolation (linear; on a CPU of few channels or without a compiler), stencils in torch."""
    fields = [make(shape, interpolation, align_corners, generator, channels) for _ in range(3)]
    x = 1.5 * inside(fields[0].domain, 2000, generator)  # beyond the box too
    x[7, 0], x[8], x[9] = torch.nan, 1e9, -1e9
    asked = [(fields[0], x), (stack(fields), x[:50]), (stack(fields), x[:60].reshape(3, 20, -1))]
    calls = []
    kept = torch.nn.functional.grid_sample
    monkeypatch.setattr(
        "inrbridge.grid.functional.grid_sample", lambda *given, **more: (calls.append(1), kept(*given, **more))[1]
    )
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        monkeypatch.delenv("INRBRIDGE_COMPILED", raising=False)
        typed = [(field.to(dtype=dtype), points.to(dtype), [False] * (field is not fields[0])) for field, points in asked]
        expected = [field(points, *unchecked) for field, points, unchecked in typed]
        is_narrow = interpolation == "linear" and channels == 2 and len(shape) <= 2
        assert building.library("corners") is None or len(calls) == 2 * is_narrow
        calls.clear()
        monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
        found = [field(points, *unchecked) for field, points, unchecked in typed]
        assert len(calls) == (2 if interpolation == "linear" and len(shape) <= 3 else 0)
        torch.testing.assert_close(found, expected, rtol=near, atol=near, equal_nan=True)
        plain = [field(points.clone().requires_grad_(), *unchecked).detach() for field, points, unchecked in typed]
        torch.testing.assert_close(plain, expected, rtol=near, atol=near, equal_nan=True)
        assert found[0][7].isnan().all() and int(found[0].isnan().any(1).sum()) == 1
        for values in (expected[0], found[0], plain[0]):  # far away the border goes on
            corners = fields[0].samples.flatten(0, -2)[[-1, 0]].to(dtype)
            torch.testing.assert_close(values[8:10], corners, rtol=1e-6, atol=1e-6)
        calls.clear()


def test_copies_of_points_under_vmap(generator):
    field = make((5, 6), "cubic", False, generator)
    x = inside(field.domain, 12, generator)
    torch.testing.assert_close(torch.vmap(field)(x), field(x))
    slopes = torch.vmap(torch.func.jacrev(field))(x)
    moved = x.clone().requires_grad_()
    torch.testing.assert_close(slopes.sum(1), torch.autograd.grad(field(moved).sum(), moved)[0])


def test_dtype_follows_the_coordinates_and_shapes_follow_the_batch(generator):
    field = make((5, 6), "cubic", False, generator, dtype=torch.float32)
    x = inside(field.domain, 6, generator)
    assert field(x).dtype == torch.float64 and field(x.float()).dtype == torch.float32
    assert field(x.bfloat16()).dtype == torch.bfloat16
    assert field(x.reshape(2, 3, 2)).shape == (2, 3, 2) and field(x[0]).shape == (2,) and field(x[:0]).shape == (0, 2)
    torch.testing.assert_close(field(x.reshape(2, 3, 2)).reshape(6, 2), field(x))


def test_samples_are_frozen_until_asked(generator):
    field = make((5, 6), "cubic", False, generator)
    x = inside(field.domain, 6, generator)
    assert not field(x).requires_grad
    field.requires_grad_()(x).sum().backward()
    assert field.samples.grad.abs().sum() > 0
    assert build_field("grid", Box.centered(2), 3, shape=4).samples.requires_grad


def test_one_sample_is_a_constant():
    field = GridField(torch.full((1, 1, 1), 3.0), Box.unit(2))
    torch.testing.assert_close(field(torch.rand(5, 2)), torch.full((5, 1), 3.0))
    corners = GridField(torch.ones(1, 1), Box.unit(1), align_corners=True)
    torch.testing.assert_close(corners(torch.rand(5, 1)), torch.ones(5, 1))


def test_saved_and_opened_again(tmp_path, generator):
    field = make((5, 6), "linear", True, generator, dtype=torch.float32)
    field.channel_names = ("red", "green")
    save_field(field, tmp_path / "f.safetensors")
    assert identify(tmp_path / "f.safetensors") == "grid"
    again = open_field(tmp_path / "f.safetensors")
    assert again.architecture == field.architecture and again.channel_names == ("red", "green")
    assert again.domain == field.domain and torch.equal(again.samples, field.samples)
    assert open_field(GridFormat().example(tmp_path)).channels == 3


def test_sampling_reads_a_signal_of_another_box(generator):
    signal = FunctionField(lambda x: x[..., :1] * 2, Box.unit(2), 1, ("height",))
    field = GridFormat().sample(signal, Box.centered(2), 1, shape=8, interpolation="linear")
    assert field.shape == (8, 8) and field.channel_names == ("height",)
    torch.testing.assert_close(field(torch.zeros(1, 2)), torch.tensor([[1.0]]))
    with pytest.raises(ShapeMismatch, match="1 channels"):
        GridFormat().sample(signal, Box.centered(2), 3)


def test_what_does_not_fit_is_refused():
    box = Box.centered(2)
    for samples in (torch.rand(4, 4), torch.rand(4, 4, 1, 1), torch.rand(4, 0, 1), torch.ones(4, 4, 1, dtype=torch.long)):
        with pytest.raises(ShapeMismatch, match="samples"):
            GridField(samples, box)
    with pytest.raises(ShapeMismatch, match="Box"):
        GridField(torch.rand(4, 4, 1), Ball((0.0, 0.0), 1.0))
    with pytest.raises(ShapeMismatch, match="Box"):
        GridField(torch.rand(2, 2, 2, 2, 2, 1), Box.centered(5))
    with pytest.raises(ConfigError, match='Did you mean "cubic"'):
        GridField(torch.rand(4, 4, 1), box, interpolation="cubik")
    with pytest.raises(ShapeMismatch, match="names"):
        GridField(torch.rand(4, 4, 1), box, channel_names=("a", "b"))
    with pytest.raises(ConfigError, match="shape"):
        GridFormat().build(box, 1, shape=(4,))
