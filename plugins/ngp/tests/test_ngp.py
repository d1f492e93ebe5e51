"""The ngp format: the laws of every format, its mathematics, its stacked evaluation, fitting, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_ngp import NgpFormat
from inrbridge_ngp.cuda import INSTALL
from inrbridge_ngp.dialects import DIALECTS

import inrbridge
from inrbridge import Box, Product, Sphere, errors, stack
from inrbridge.testing import FormatConformance


class TestNgp(FormatConformance):
    format = NgpFormat()


class TestRadiance(FormatConformance):
    format = NgpFormat()

    @pytest.fixture
    def checkpoint(self, tmp_path):
        field = build(Product(Box((0, -1, 2), (1, 1, 4)), Sphere()), 4, log2_table=8)
        NgpFormat().save(field, tmp_path / "radiance.safetensors")
        return tmp_path / "radiance.safetensors"


SPACE = Product(Box.centered(3), Sphere())
# a head, other features than a grid's, and conventions of other code bases
VARIANTS = {
    "values": (Box.unit(2), 3, {"final": "sigmoid", "up": "-x"}),
    "biases": (Box.unit(2), 1, {"bias": "all", "activation": "sine"}),
    "octaves": (Box.unit(2), 2, {"frequencies": 3, "raw": True}),
    "medium": (Box.centered(3), 4, {"head": "medium", "planes": [5, 3], "levels": 2, "convention": {"outside": "dark"}}),
    "planes": (Box.centered(3), 4, {"head": "medium", "planes": [5, 3], "levels": 0}),
    "radiance": (SPACE, 4, {"geometry": 5, "harmonics": 2}),
    "contracted": (Product(Box.centered(3, 5), Sphere()), 4,
                   {"convention": {"contraction": "sphere", "low": [-1] * 3, "high": [1] * 3, "outside": "dark"}}),
    "cube": (Product(Box.centered(3, 5), Sphere()), 4,
             {"convention": {"contraction": "cube", "low": [-1] * 3, "high": [1] * 3, "outside": "origin",
                             "directions": "shifted"}}),
    "toned": (SPACE, 4, {"convention": {"tone": True, "outside": "blank"}, "layout": "torch-ngp"}),
    "turned": (SPACE, 4, {"convention": {"rotation": [[0, 1, 0], [0, 0, 1], [1, 0, 0]], "colour": "exp", "density_scale": 3.0}}),
    "clamped": (SPACE, 4, {"convention": {"outside": "clamp", "density": "relu", "low": [-0.5] * 3, "high": [0.5] * 3},
                           "layout": "hashnerf"}),
}  # fmt: skip
variants = pytest.mark.parametrize(("domain", "channels", "options"), VARIANTS.values(), ids=VARIANTS)


def build(domain=None, channels=1, seed=0, **options):
    options = {"width": 16, "levels": 4, "log2_table": 7, "base": 3, "finest": 20} | options
    field = NgpFormat().build(domain or Box.unit(2), channels, generator=torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():  # fresh tables are near 0
        for name in ("table", "planes"):
            getattr(field, name, torch.zeros(1)).mul_(30)
    return field


def points(domain, *shape, dtype=torch.float32, seed=5):
    unit = torch.rand(*shape, domain.unit_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return domain.from_unit(unit.flatten(0, -2)).reshape(*shape, -1).to(dtype)


def states_of(fields):
    return {name: torch.stack([field.state_dict()[name] for field in fields]) for name in fields[0].state_dict()}


def test_the_formula_of_values(slow):
    field = build(Box((0.0, 2.0), (4.0, 3.0)), 3)
    coords = points(field.domain, 9)
    u = (coords - torch.tensor([0.0, 2.0])) / torch.tensor([4.0, 1.0])
    grid = slow.grid(u.numpy(), field.table.detach().flatten().numpy(), levels=4, features=2, log2_table=7, base=3,
                     growth=field.grid.growth)  # fmt: skip
    first, second = (layer.weight.detach().numpy() for layer in field.base)
    expected = np.maximum(grid @ first.T, 0) @ second.T
    assert np.abs(field(coords).detach().numpy() - expected).max() < 1e-6


def test_the_formula_of_radiance(slow):
    field = build(Product(Box.centered(3), Sphere()), 4)
    coords = points(field.domain, 9)
    u = (coords[:, :3] + 1) / 2
    grid = slow.grid(u.numpy(), field.table.detach().flatten().numpy(), levels=4, features=2, log2_table=7, base=3,
                     growth=field.grid.growth)  # fmt: skip
    matrices = {name: value.detach().numpy() for name, value in field.named_parameters()}
    out = np.maximum(grid @ matrices["base.0.weight"].T, 0) @ matrices["base.1.weight"].T
    h = np.concatenate([slow.harmonics(coords[:, 3:].numpy()), out], 1)
    for i in range(3):
        h = np.maximum(h, 0) if i else h
        h = h @ matrices[f"colour.{i}.weight"].T
    expected = np.concatenate([slow.sigmoid(h), np.exp(out[:, :1])], 1)
    assert np.abs(field(coords).detach().numpy() - expected).max() < 1e-5
    assert field.channel_names == ("red", "green", "blue", "density") and field.channel_ranges == ((0.0, 1.0),) * 3 + (None,)


def test_three_planes_equal_grid_sample():
    field = build(Box.centered(3), 4, head="medium", planes=[6, 2], levels=0)
    x = 1.2 * points(field.domain, 30)  # also beyond the planes, where they are 0
    pairs = torch.stack([x[:, [0, 1]], x[:, [0, 2]], x[:, [1, 2]]])[:, None]
    sampled = torch.nn.functional.grid_sample(field.planes.permute(0, 3, 1, 2), pairs, align_corners=True)
    truth = sampled[:, :, 0].sum(0).T
    found = field._features({"planes": field.planes[None]}, (x + 1) / 2, 1)[0]
    assert torch.allclose(found, truth, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_builds_on_boxes_of_any_dimension(dim, channels):
    field = NgpFormat().build(Box.centered(dim), channels)
    assert field(points(field.domain, 5)).shape == (5, channels) and field(points(field.domain, 2, 3)).shape == (2, 3, channels)
    again = NgpFormat().build(field.domain, channels, **json.loads(json.dumps(field.architecture)))
    assert again.grid == field.grid and torch.equal(again.table, field.table)


def test_it_lives_on_other_domains():
    for domain in (Sphere(), Product(Box.unit(2), Box.unit(1))):
        assert build(domain, 2)(points(domain, 4)).shape == (4, 2)


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


def test_chunks_of_points_change_nothing():
    fields = [build(seed=seed, width=64) for seed in range(3)]
    coords = points(Box.unit(2), 9000)
    truth = torch.stack([field(coords) for field in fields]).detach()
    with torch.no_grad():
        assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-5)


@variants
@pytest.mark.parametrize(("own", "most"), [(1, 64), (5000, 64), (2**20, 1024)])
def test_chunks_of_fields_with_their_own_points_change_nothing(domain, channels, options, own, most, monkeypatch):
    fields = [build(domain, channels, seed=seed, **options) for seed in range(3)]
    coords = points(domain, 3, 150)
    with torch.no_grad():
        truth = torch.stack([field(one) for field, one in zip(fields, coords, strict=True)])
        monkeypatch.setattr("inrbridge_ngp.field._OWN_NUMBERS", own)
        monkeypatch.setattr("inrbridge_ngp.field._CACHE_NUMBERS", most)
        found = fields[0].evaluate_stack(states_of(fields), coords)
    assert found.shape == truth.shape and torch.allclose(found, truth, rtol=1e-5, atol=1e-5)


@variants
def test_first_and_second_derivatives(domain, channels, options):
    field = build(domain, channels, activation="tanh", **{k: v for k, v in options.items() if k != "activation"}).double()
    names = [name for name, _ in field.named_parameters() if name.startswith(("table", "planes", "base.0"))]
    fixed = {name: value.detach()[None] for name, value in field.named_parameters()}
    coords = points(domain, 3, dtype=torch.float64, seed=8).requires_grad_()

    def evaluate(coords, *tensors):
        return field.evaluate_stack(fixed | dict(zip(names, tensors, strict=True)), coords)

    tensors = [fixed[name].clone().requires_grad_() for name in names]
    # along random directions: all pairs of parameters would take minutes
    assert torch.autograd.gradcheck(evaluate, (coords, *tensors), fast_mode=True)
    assert torch.autograd.gradgradcheck(evaluate, (coords, *tensors), atol=1e-4, fast_mode=True)


def test_contractions():
    """The middle half of the cube holds the box, the rest all other space, continuously."""
    for contraction in ("sphere", "cube"):
        field = build(
            Box.centered(3, 9), 4, head="medium", convention={"contraction": contraction, "low": [-1] * 3, "high": [1] * 3}
        )
        enter = field.convention.enter
        x = torch.tensor([[0.5, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0001, 0.0, 0.0], [2.0, 0.0, 0.0], [1e6, 0.0, 0.0]])
        u, seen = enter(x, field.domain.bounds)
        assert seen is None and torch.allclose(u[:, 0], torch.tensor([0.625, 0.75, 0.75, 0.875, 1.0]), atol=1e-4)
    assert u.isfinite().all() and enter(torch.zeros(1, 3), field.domain.bounds)[0].tolist() == [[0.5] * 3]


def test_density_is_0_outside_where_a_code_base_says_so():
    for outside, dark in (("wrap", False), ("dark", True), ("origin", True), ("blank", False), ("clamp", True)):
        field = build(SPACE, 4, convention={"low": [-0.5] * 3, "high": [0.5] * 3, "outside": outside})
        values = field(torch.tensor([[0.7, 0, 0, 0, 0, 1.0], [0.1, 0, 0, 0, 0, 1.0]])).detach()
        assert (values[0, 3] == 0) == dark and values[1, 3] > 0


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
    a, b, c = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.table, b.table) and not torch.equal(a.table, c.table)


@variants
def test_the_architecture_is_json_and_complete(domain, channels, options, tmp_path):
    field = build(domain, channels, **options)
    NgpFormat().save(field, tmp_path / "field.safetensors")
    again = NgpFormat().open(tmp_path / "field.safetensors")
    coords = points(domain, 7)
    assert again.architecture == field.architecture and torch.equal(again(coords), field(coords))


def test_fitting_pictures_side_by_side():
    rows, columns = np.meshgrid(np.linspace(0, 3, 12), np.linspace(0, 2, 12), indexing="ij")
    pictures = [0.5 + 0.5 * np.sin((k + 1) * rows + columns)[..., None].astype(np.float32) for k in range(3)]
    fields = inrbridge.fit(pictures, "ngp", steps=200, seed=0)
    assert min(field.psnr for field in fields) > 30


def test_fitting_a_distance():
    fields = inrbridge.fit([lambda x: x.norm(dim=-1, keepdim=True) - 0.5], "ngp", domain=Box.centered(3), steps=150)
    assert fields[0].psnr > 30


@pytest.mark.parametrize(
    ("options", "channels"),
    [({"width": 0}, 1), ({"levels": 0}, 1), ({"head": "medium"}, 1), ({"head": "radiance"}, 4), ({"head": "picture"}, 1),
     ({"activation": "gelu"}, 1), ({"finest": 9, "growth": 2.0}, 1), ({"planes": [4, 2]}, 1), ({"evaluator": "cpu"}, 1),
     ({"up": "w"}, 1), ({"convention": {"outside": "bright"}}, 1), ({"convention": {"upside": 1}}, 1), ({"base": 0}, 1),
     ({"convention": {"low": [0, 0]}}, 1), ({"convention": {"rotation": [[1, 0]]}}, 1), ({"log2_table": 30, "features": 64}, 1)],
)  # fmt: skip
def test_impossible_fields_are_refused(options, channels):
    if options.get("log2_table") == 30:
        options = options | {"base": 2**20, "finest": 2**20}
    with pytest.raises(errors.InrBridgeError, match=r"expected|There is no"):
        build(channels=channels, **options)


def test_the_page_of_the_plugin(monkeypatch, tmp_path):
    place = Path(__file__).parents[1] / "README.md"
    if not place.is_file():
        pytest.skip("runs in a checkout: the page is not installed")
    page = place.read_text(encoding="utf-8")
    assert INSTALL in page and all(f"| `{name}` |" in page for name in DIALECTS)
    (block,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_native_files_take_no_options_of_foreign_ones(tmp_path):
    path = NgpFormat().example(tmp_path)
    with pytest.raises(errors.ConfigError, match="density_scale"):
        NgpFormat().open(path, density_scale=2.0)
    assert NgpFormat().open(path, evaluator="torch").evaluator == "torch"
