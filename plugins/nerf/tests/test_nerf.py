"""The nerf format: the laws of every format, its mathematics, its stacked evaluation, fitting, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from inrbridge_nerf import NerfFormat

import inrbridge
from inrbridge import Box, Product, Sphere, errors, stack
from inrbridge.radiance import Occupancy, OccupancySampler
from inrbridge.testing import FormatConformance


class TestNerf(FormatConformance):
    format = NerfFormat()


class TestRadiance(FormatConformance):
    format = NerfFormat()

    @pytest.fixture
    def checkpoint(self, tmp_path):
        field = build(Product(Box((0, -1, 2), (1, 1, 4)), Sphere()), 4, layers=6)
        NerfFormat().save(field, tmp_path / "radiance.safetensors")
        return tmp_path / "radiance.safetensors"


SPACE = Product(Box.centered(3), Sphere())
# a head, a shape of the networks, and conventions of other code bases
VARIANTS = {
    "values": (Box((0.0, 2.0), (4.0, 3.0)), 3, {"final": "sigmoid"}),
    "bare": (Box.unit(2), 1, {"frequencies": 0, "layers": 1}),
    "medium": (Box.centered(3), 4, {"head": "medium", "skips": [1, 2]}),
    "radiance": (SPACE, 4, {"layers": 6}),
    "featureless": (SPACE, 4, {"feature": "none", "branch": [5, 7], "first_active": False}),
    "branchless": (SPACE, 4, {"feature": "active", "feature_width": 9, "branch": [], "convention": {"direction_raw": False}}),
    "foreign": (SPACE, 4, {"convention": {"normalize": False, "unit": 6.28, "highest": 2.5, "direction_highest": 1.5,
                                          "raw": False, "cosine": "shifted sine", "low": [-0.5] * 3, "high": [0.5] * 3}}),
    "turned": (SPACE, 4, {"convention": {"normalize": False, "rotation": [[0, 1, 0], [0, 0, 1], [1, 0, 0]], "scale": 2.0,
                                         "shift": [0.1, 0, 0], "density_shift": -1, "density_scale": 3.0, "colour": "none"}}),
}  # fmt: skip
variants = pytest.mark.parametrize(("domain", "channels", "options"), VARIANTS.values(), ids=VARIANTS)


def build(domain=None, channels=1, seed=0, **options):
    options = {"width": 16, "layers": 3, "frequencies": 3, "direction_frequencies": 2} | options
    field = NerfFormat().build(domain or Box.unit(2), channels, generator=torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():  # fresh biases are 0
        for name, value in field.named_parameters():
            if name.endswith("bias"):
                value.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(seed))
    return field


def points(domain, *shape, dtype=torch.float32, seed=5):
    unit = torch.rand(*shape, domain.unit_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return domain.from_unit(unit.flatten(0, -2)).reshape(*shape, -1).to(dtype)


def states_of(fields):
    return {name: torch.stack([field.state_dict()[name] for field in fields]) for name in fields[0].state_dict()}


def slow(field, point):
    """One value of a field, number by number in numpy."""
    facts, rule = field.architecture, field.convention
    weights = {name: value.detach().double().numpy() for name, value in field.named_parameters()}
    act = {"relu": lambda x: np.maximum(x, 0), "softplus": lambda x: np.log1p(np.exp(x))}

    def waves(x, count, highest, raw):
        found = [*x] if raw or not count else []
        for k in range(count):
            frequency = rule.unit * 2 ** (k if highest is None else highest * k / (count - 1))
            found += [math.sin(frequency * c) for c in x] + [math.cos(frequency * c) for c in x]
        return np.array(found)

    def affine(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    place, direction = np.array(point[: field.places.dim]), np.array(point[field.places.dim :])
    if rule.normalize:
        low, high = (np.array(bound) for bound in field.places.bounds)
        place = 2 * (place - low) / (high - low) - 1
    else:
        turn = np.eye(3) if rule.rotation is None else np.array(rule.rotation)
        place = rule.scale * (turn @ place + (0 if rule.shift is None else np.array(rule.shift)))
        direction = turn @ direction if len(direction) else direction
    encoded = waves(place, field.frequencies, rule.highest, rule.raw)
    h = encoded
    for i in range(facts["layers"]):
        h = affine(f"trunk.{i}", np.concatenate([encoded, h]) if i in facts["skips"] else h)
        h = act[field.activation](h) if i or field.first_active else h
    if facts["head"] == "values":
        out = affine("readout", h)
        return 1 / (1 + np.exp(-out)) if field.final == "sigmoid" else out
    if facts["head"] == "medium":
        colour, density = np.split(affine("readout", h), [3])
    else:
        density = affine("density", h)
        if facts["feature"] != "none":
            h = affine("feature", h)
            h = act[field.activation](h) if facts["feature"] == "active" else h
        h = np.concatenate([waves(direction, field.direction_frequencies, rule.direction_highest, rule.direction_raw), h])
        for i in range(len(facts["branch"])):
            h = act[field.activation](affine(f"branch.{i}", h))
        colour = affine("colour", h)
    density = rule.density_scale * act[rule.density](density + rule.density_shift) * rule.scale
    if rule.low is not None and not all(a <= p <= b for a, p, b in zip(rule.low, place, rule.high, strict=True)):
        density = 0 * density
    return np.concatenate([colour if rule.colour == "none" else 1 / (1 + np.exp(-colour)), density])


@variants
def test_the_formulas_number_by_number(domain, channels, options):
    field, coords = build(domain, channels, **options), points(domain, 12, dtype=torch.float64)
    found = field.double()(coords).detach().numpy()
    assert np.abs(found - np.stack([slow(field, point.tolist()) for point in coords])).max() < 1e-12
    if channels == 4:
        assert field.channel_names == ("red", "green", "blue", "density") and field.channel_ranges[3] is None


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_builds_on_boxes_of_any_dimension(dim, channels):
    field = NerfFormat().build(Box.centered(dim), channels)
    assert field(points(field.domain, 5)).shape == (5, channels) and field(points(field.domain, 2, 3)).shape == (2, 3, channels)
    again = NerfFormat().build(field.domain, channels, **json.loads(json.dumps(field.architecture)))
    assert torch.equal(again(points(field.domain, 5)), field(points(field.domain, 5)))


@variants
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stack_equals_the_loop(domain, channels, options, own, dtype):
    fields = [build(domain, channels, seed=seed, **options) for seed in range(3)]
    coords = points(domain, 3, 40, dtype=dtype) if own else points(domain, 40, dtype=dtype)
    each = coords if own else [coords] * 3
    truth = torch.stack([field(one) for field, one in zip(fields, each, strict=True)])
    found = fields[0].evaluate_stack(states_of(fields), coords)
    assert found.dtype == dtype and torch.allclose(found, truth, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(stack(fields)(coords), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_chunks_of_points_and_fields_change_nothing(own):
    fields = [build(SPACE, 4, seed=seed, width=64) for seed in range(3)]
    coords = points(SPACE, *((3, 5000) if own else (5000,)))
    truth = torch.stack([field(one) for field, one in zip(fields, coords if own else [coords] * 3, strict=True)]).detach()
    with torch.no_grad():
        assert [len(cuts) > 1 for cuts in fields[0]._chunks(3, coords)] == [True, True]
        assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-5)


@variants
def test_first_and_second_derivatives(domain, channels, options):
    small = {"width": 3, "frequencies": 2, "direction_frequencies": 1, "layers": 2, "skips": [1], "activation": "softplus"}
    small |= {name: value for name, value in options.items() if name not in ("layers", "skips")}
    small |= {"branch": [2]} if options.get("branch") else {}
    field = build(domain, channels, **small).double()
    names = [name for name, _ in field.named_parameters() if name.startswith(("trunk.0.bias", "trunk.1.weight", "colour.bias"))]
    fixed = {name: value.detach()[None] for name, value in field.named_parameters()}
    coords = points(domain, 2, dtype=torch.float64, seed=8).requires_grad_()

    def evaluate(coords, *tensors):
        return field.evaluate_stack(fixed | dict(zip(names, tensors, strict=True)), coords)

    tensors = [fixed[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(evaluate, (coords, *tensors))
    assert torch.autograd.gradgradcheck(evaluate, (coords, *tensors), atol=1e-4)


def test_half_precision_coordinates():
    field, coords = build(), points(Box.unit(2), 50).half()
    assert field(coords).dtype == torch.float16
    assert torch.allclose(field(coords).float(), field(coords.float()), atol=1e-2)


def test_an_empty_stack_and_no_points():
    field = build()
    assert field.evaluate_stack({n: v[None][:0] for n, v in field.state_dict().items()}, torch.zeros(5, 2)).shape == (0, 5, 1)
    assert field.evaluate_stack(states_of([field]), torch.zeros(0, 2)).shape == (1, 0, 1)
    assert field(torch.zeros(0, 2)).shape == (0, 1)


def test_build_is_seeded_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = (NerfFormat().build(Box.unit(2), 1, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.trunk[0].weight, b.trunk[0].weight) and not torch.equal(a.trunk[0].weight, c.trunk[0].weight)


@variants
def test_the_architecture_is_json_and_complete(domain, channels, options, tmp_path):
    field = build(domain, channels, **options)
    NerfFormat().save(field, tmp_path / "field.safetensors")
    again = NerfFormat().open(tmp_path / "field.safetensors")
    coords = points(domain, 7)
    assert again.architecture == field.architecture and torch.equal(again(coords), field(coords))


def test_fitting_pictures_side_by_side():
    rows, columns = np.meshgrid(np.linspace(0, 3, 12), np.linspace(0, 2, 12), indexing="ij")
    pictures = [0.5 + 0.5 * np.sin((k + 1) * rows + columns)[..., None].astype(np.float32) for k in range(3)]
    fields = inrbridge.fit(pictures, "nerf", steps=200, seed=0, width=32)
    assert min(field.psnr for field in fields) > 30


def test_fitting_a_distance():
    fields = inrbridge.fit([lambda x: x.norm(dim=-1, keepdim=True) - 0.5], "nerf", domain=Box.centered(3), steps=150)
    assert fields[0].psnr > 25


@pytest.mark.parametrize("seed", range(4))
def test_fresh_density_is_alive_whatever_the_unit_of_length(seed):
    for side in (0.01, 1.0, 100.0):
        field = NerfFormat().build(Product(Box.centered(3, side), Sphere()), 4, generator=torch.Generator().manual_seed(seed))
        coords = points(field.domain, 200).requires_grad_()
        depth = 2 * side * field(coords)[:, 3]
        assert 0.3 < float(depth.detach().mean()) < 10
        loss = torch.autograd.grad(depth.mean(), field.density.weight)[0]
        assert float(loss.abs().max()) > 0


def test_importance_points_integrate_the_density():
    """The occupancy grid's points give the integral of a density that fills a small part of the box."""
    field = build(SPACE, 4, convention={"density": "relu", "density_shift": -0.6})
    axis = (torch.arange(64) + 0.5) / 32 - 1
    grid = torch.cartesian_prod(axis, axis, axis)
    upward = torch.tensor([0.0, 0, 1]).expand_as(grid)
    with torch.no_grad():
        truth = float(field(torch.cat([grid, upward], 1))[:, 3].double().mean()) * 8
        matter = field(torch.cat([grid, upward], 1))[:, 3] > 0
        sampler = OccupancySampler(Occupancy.of(field, 32, margin=False, generator=torch.Generator().manual_seed(0)))
        found = sampler(SPACE, 2**14, torch.Generator().manual_seed(1))
        estimate = float((found.weights * field(found.points)[:, 3]).sum()) / (4 * math.pi)
    assert 0 < float(matter.float().mean()) < 0.5
    assert float(found.weights.double().sum()) == pytest.approx(SPACE.measure, rel=1e-5)
    assert estimate == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize(
    ("options", "channels"),
    [({"width": 0}, 1), ({"layers": 0}, 1), ({"head": "medium"}, 1), ({"head": "radiance"}, 4), ({"head": "picture"}, 1),
     ({"activation": "gelu"}, 1), ({"final": "exp"}, 1), ({"skips": [0]}, 1), ({"skips": [3]}, 1), ({"frequencies": 65}, 1),
     ({"frequencies": 2.5}, 1), ({"convention": {"density": "exp"}}, 1), ({"convention": {"upside": 1}}, 1),
     ({"branch": [0]}, 1), ({"feature": "curved"}, 1), ({"convention": {"rotation": [[1, 0]]}}, 1),
     ({"convention": {"scale": 2.0}}, 1), ({"convention": {"low": [0, 0]}}, 1)],
)  # fmt: skip
def test_impossible_fields_are_refused(options, channels):
    with pytest.raises(errors.InrBridgeError, match=r"expected|There is no"):
        build(channels=channels, **options)


def test_native_files_take_no_options_of_foreign_ones(tmp_path):
    path = NerfFormat().example(tmp_path)
    with pytest.raises(errors.ConfigError, match="density"):
        NerfFormat().open(path, density="relu")
