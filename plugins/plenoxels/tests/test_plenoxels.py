"""The plenoxels format: the laws of every format, its mathematics, its stacked evaluation, fitting, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from inrbridge_plenoxels import PlenoxelsFormat

import inrbridge
from inrbridge import Box, FunctionField, Product, Sphere, errors, stack
from inrbridge.radiance import Camera, focal_length, orbit, render_rays
from inrbridge.testing import FormatConformance

BOX = Box((-1, -2, 0), (1, 1, 1))
SPACE = Product(BOX, Sphere())
# the heads, the cells and the bases
VARIANTS = {
    "curve": (Box.unit(1), 2, {"resolution": 9}),
    "picture": (Box.centered(2), 3, {"resolution": [5, 7]}),
    "volume": (BOX, 1, {"resolution": 4, "rows": 40}),
    "sparse": (SPACE, 4, {"resolution": [5, 4, 6], "rows": 60, "harmonics": 3, "density": "relu", "colour": "relu"}),
    "dense": (SPACE, 4, {"resolution": 4}),
    "texture": (SPACE, 4, {"resolution": 3, "basis": "texture", "components": 5, "side": 4}),
    "network": (SPACE, 4, {"resolution": 3, "basis": "network", "components": 5, "octaves": 2, "width": 6}),
    "octree": (SPACE, 4, {"nodes": 3, "harmonics": 2, "padding": 0.1}),
    "gaussians": (SPACE, 4, {"nodes": 2, "basis": "gaussians", "components": 3}),
    "anisotropic": (SPACE, 4, {"nodes": 2, "branching": 3, "basis": "anisotropic", "components": 3}),
    "medium": (BOX, 4, {"nodes": 2, "head": "medium"}),
}  # fmt: skip
variants = pytest.mark.parametrize(("domain", "channels", "options"), VARIANTS.values(), ids=VARIANTS)


class TestPlenoxels(FormatConformance):
    format = PlenoxelsFormat()


class TestSvox2(FormatConformance):
    format = PlenoxelsFormat()

    @pytest.fixture
    def checkpoint(self, write):
        return write.svox2()


class TestSvox(FormatConformance):
    format = PlenoxelsFormat()

    @pytest.fixture
    def checkpoint(self, write):
        return write.svox(data_format="RGBA")


def build(domain, channels, seed=0, **options):
    field = PlenoxelsFormat().build(domain, channels, generator=torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():  # fresh tables are near 0
        field.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))
        if options.get("rows"):
            order = torch.randperm(field.links.numel(), generator=torch.Generator().manual_seed(seed))
            field.links.copy_(field.links.flatten()[order].reshape(field.links.shape))
        if options.get("nodes"):
            field.child[0, 0, 1, 0] = 1
    if options.get("nodes"):
        field.cells = type(field.cells)(field.cells.nodes, field.cells.branching, 2)
    return field


def points(domain, *shape, dtype=torch.float32, seed=5):
    unit = torch.rand(*shape, domain.unit_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return domain.from_unit(unit.flatten(0, -2)).reshape(*shape, -1).to(dtype)


def states_of(fields):
    return {name: torch.stack([field.state_dict()[name] for field in fields]) for name in fields[0].state_dict()}


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [None, 5])
def test_the_formula_of_values(dim, rows, slow):
    domain = Box([-1.0, 2.0, 0.0, -3.0][:dim], [1.0, 3.0, 4.0, 1.0][:dim])
    field = build(domain, 2, resolution=[3, 4, 2, 1][:dim], rows=rows and min(rows, 2 * dim))
    coords = torch.cat([points(domain, 20), torch.tensor([domain.low, domain.high])])
    links = field.links.numpy() if rows else None
    for x, found in zip(coords.tolist(), field(coords).detach().numpy(), strict=True):
        truth = slow.trilinear(x, *domain.bounds, field.table.detach().flatten(0, -2).numpy(), field.cells.resolution, links)
        assert np.abs(found - truth).max() < 1e-5


def test_the_formula_of_radiance(slow):
    field = build(SPACE, 4, resolution=[5, 4, 6], rows=60, harmonics=4)
    for x, found in zip(points(SPACE, 20), field(points(SPACE, 20)).detach().numpy(), strict=True):
        row = slow.trilinear(
            x[:3].tolist(), *BOX.bounds, field.table.detach().flatten(0, -2).numpy(), (5, 4, 6), field.links.numpy()
        )
        colours = slow.sigmoid(row[1:].reshape(3, 16) @ slow.harmonics(x[3:].numpy()))
        density = 6 * math.log1p(math.exp(row[0]))  # the cells of the third axis are the smallest, 1 / 6 wide
        assert np.abs(found - [*colours, density]).max() < 1e-5
    assert field.channel_names == ("red", "green", "blue", "density") and field.channel_ranges == ((0.0, 1.0),) * 3 + (None,)


def test_a_lattice_passes_through_its_table():
    field = build(Box.unit(2), 3, resolution=[4, 5])
    middles = torch.cartesian_prod((torch.arange(4) + 0.5) / 4, (torch.arange(5) + 0.5) / 5)
    assert torch.allclose(field(middles), field.table.flatten(0, 1), atol=1e-6)


def test_an_octree_is_constant_in_its_leaves():
    field = build(BOX, 4, nodes=2, head="medium")
    low, size = torch.tensor(BOX.low), torch.tensor(BOX.size)
    inside = low + size * torch.tensor([[0.3, 0.8, 0.1], [0.45, 0.95, 0.2], [0.2, 0.8, 0.1]])
    values = field(inside.requires_grad_())
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    assert torch.autograd.grad(values.sum(), inside)[0].abs().max() == 0


@variants
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stack_equals_the_loop(domain, channels, options, own, dtype):
    fields = [build(domain, channels, seed=seed, **options) for seed in range(3)]
    coords = points(domain, 3, 40, dtype=dtype) if own else points(domain, 40, dtype=dtype)
    truth = torch.stack([field(one) for field, one in zip(fields, coords if own else [coords] * 3, strict=True)])
    found = fields[0].evaluate_stack(states_of(fields), coords)
    assert found.dtype == dtype and torch.allclose(found, truth, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(stack(fields)(coords), truth, rtol=1e-5, atol=1e-5)


@variants
def test_first_and_second_derivatives(domain, channels, options):
    field = build(domain, channels, **options).double()
    names = [name for name, _ in field.named_parameters()]
    buffers = {name: value[None] for name, value in field.named_buffers()}
    coords = points(domain, 2, dtype=torch.float64, seed=8).requires_grad_()

    def evaluate(coords, *tensors):
        return field.evaluate_stack(buffers | dict(zip(names, tensors, strict=True)), coords)

    tensors = [value.detach()[None].clone().requires_grad_() for value in field.parameters()]
    assert torch.autograd.gradcheck(evaluate, (coords, *tensors), fast_mode=True)
    assert torch.autograd.gradgradcheck(evaluate, (coords, *tensors), atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("channels", [1, 40])
def test_gradients_of_a_table_equal_those_of_plain_indexing(channels):
    """Both ways in which gradients are summed."""
    field = build(Box.unit(2), channels, resolution=[4, 5])
    coords = points(field.domain, 200)
    rows, weights = field.cells.find(coords, {}, 1)
    table = field.table.detach().clone().requires_grad_()
    plain = (table.flatten(0, 1)[rows] * weights.unsqueeze(-1)).sum(1)
    field(coords).square().sum().backward()
    plain.square().sum().backward()
    assert torch.allclose(field.table.grad, table.grad, atol=1e-4)


def test_chunks_of_points_change_nothing():
    fields = [build(SPACE, 4, seed=seed, resolution=4) for seed in range(3)]
    coords = points(SPACE, 9000)
    truth = torch.stack([field(coords) for field in fields]).detach()
    with torch.no_grad():
        assert torch.allclose(fields[0].evaluate_stack(states_of(fields), coords), truth, atol=1e-5)


def test_half_precision_coordinates():
    field, coords = build(Box.unit(2), 1), points(Box.unit(2), 50).half()
    assert field(coords).dtype == torch.float16
    assert torch.allclose(field(coords).float(), field(coords.float()), atol=1e-2)


def test_an_empty_stack_and_no_points():
    field = build(SPACE, 4, resolution=3)
    assert field.evaluate_stack({n: v[None][:0] for n, v in field.state_dict().items()}, torch.zeros(5, 6)).shape == (0, 5, 4)
    assert field.evaluate_stack(states_of([field]), torch.zeros(0, 6)).shape == (1, 0, 4)
    assert field(torch.zeros(0, 6)).shape == (0, 4)


@variants
def test_the_architecture_is_json_and_complete(domain, channels, options, tmp_path):
    field = build(domain, channels, **options)
    PlenoxelsFormat().save(field, tmp_path / "field.safetensors")
    again = PlenoxelsFormat().open(tmp_path / "field.safetensors")
    assert again.architecture == json.loads(json.dumps(field.architecture))
    assert torch.equal(again(points(domain, 7)), field(points(domain, 7)))


def test_build_is_seeded_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b, c = (PlenoxelsFormat().build(SPACE, 4, generator=torch.Generator().manual_seed(s), resolution=3) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.table, b.table) and not torch.equal(a.table, c.table)


@pytest.mark.parametrize("density", ["softplus", "relu"])
def test_fresh_fog_is_thin_and_learns(density):
    field = PlenoxelsFormat().build(SPACE, 4, density=density, resolution=8)
    values = field(points(SPACE, 100))
    optical_depth = values[:, 3].detach() * max(BOX.size)
    assert float(optical_depth.min()) > 0 and float(optical_depth.max()) < 1
    values[:, 3].sum().backward()
    assert (field.table.grad[..., 0] > 0).any()


def test_fitting_pictures_side_by_side():
    rows, columns = np.meshgrid(np.linspace(0, 3, 12), np.linspace(0, 2, 12), indexing="ij")
    pictures = [0.5 + 0.5 * np.sin((k + 1) * rows + columns)[..., None].astype(np.float32) for k in range(3)]
    fields = inrbridge.fit(pictures, "plenoxels", steps=200, seed=0, resolution=16)
    assert min(field.psnr for field in fields) > 30


def test_fitting_a_distance():
    fields = inrbridge.fit([lambda x: x.norm(dim=-1, keepdim=True) - 0.5], "plenoxels", domain=Box.centered(3), steps=150)
    assert fields[0].psnr > 30


def test_a_fresh_field_learns_what_rays_see():
    """A red ball of radius 1/2 and density 20, from all sides."""
    ball = FunctionField(lambda x: torch.cat([torch.tensor([0.9, 0.2, 0.1]).expand(*x.shape[:-1], 3),
                                              20.0 * (x.norm(dim=-1, keepdim=True) < 0.5)], -1),
                         Box.centered(3), 4, ("red", "green", "blue", "density"))  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    cameras = [Camera(orbit(angle, 0.4 * (-1) ** angle, 3.0), focal_length(12), 12, 12) for angle in range(6)]
    rays = [camera.rays() for camera in cameras]
    truth = [render_rays(ball, some, samples=64, background=torch.ones(3)).colours for some in rays]
    field = PlenoxelsFormat().build(Product(Box.centered(3), Sphere()), 4, generator=generator, resolution=12)
    optimizer = torch.optim.Adam(field.parameters(), lr=PlenoxelsFormat().fit_defaults()["lr"])
    losses = []
    for step in range(60):
        found = render_rays(field, rays[step % 6], samples=24, background=torch.ones(3), generator=generator).colours
        losses.append(torch.nn.functional.mse_loss(found, truth[step % 6]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert float(losses[-1].detach()) < 0.003 < 0.03 < float(losses[0].detach())


@pytest.mark.parametrize(
    ("options", "domain", "channels"),
    [({"resolution": 0}, BOX, 1), ({"resolution": [3, 3]}, BOX, 1), ({"resolution": 2000}, BOX, 1), ({"rows": 0}, BOX, 1),
     ({"resolution": 2, "rows": 9}, BOX, 1), ({"head": "medium"}, BOX, 1), ({"head": "radiance"}, BOX, 4),
     ({"head": "picture"}, BOX, 4), ({"nodes": 0}, SPACE, 4), ({"nodes": 2}, Box.unit(2), 1), ({"nodes": 2**30}, SPACE, 4),
     ({"nodes": 2, "resolution": 4}, SPACE, 4), ({"nodes": 1, "levels": 99}, SPACE, 4), ({"basis": "wavelets"}, SPACE, 4),
     ({"harmonics": 9}, SPACE, 4), ({"basis": "texture", "side": 1}, SPACE, 4), ({"basis": "network", "width": 0}, SPACE, 4),
     ({"basis": "gaussians", "components": 999}, SPACE, 4), ({"density": "exp"}, SPACE, 4), ({"colour": "none"}, SPACE, 4),
     ({"density_scale": -1.0}, SPACE, 4), ({"padding": 2.0}, SPACE, 4), ({}, Sphere(), 1), ({}, Box.unit(5), 1),
     ({"resolution": 1024, "harmonics": 8}, SPACE, 4)],
)  # fmt: skip
def test_impossible_fields_are_refused(options, domain, channels):
    with pytest.raises(errors.InrBridgeError, match=r"expected|There is no"):
        PlenoxelsFormat().build(domain, channels, **options)


def test_native_files_take_no_options_of_foreign_ones(tmp_path):
    path = PlenoxelsFormat().example(tmp_path)
    with pytest.raises(errors.ConfigError, match="padding"):
        PlenoxelsFormat().open(path, padding=0.001)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [({"resolution": 3, "rows": 20}, "links", 20), ({"nodes": 2}, "child", 7), ({"nodes": 2}, "child", -1)],
)  # fmt: skip
def test_native_files_that_lead_astray_are_refused(options, name, value, tmp_path):
    field = build(SPACE, 4, **options)
    with torch.no_grad():
        getattr(field, name).flatten()[5] = value
    PlenoxelsFormat().save(field, tmp_path / "bad.safetensors")
    with pytest.raises(errors.CannotOpen, match="damaged"):
        PlenoxelsFormat().open(tmp_path / "bad.safetensors")
