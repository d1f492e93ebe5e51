"""Files of svox2 and svox: tiny ones against slow twins, the samples in INRBRIDGE_DATA against their writers, refusals."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_plenoxels import PlenoxelsFormat

from inrbridge import Box, Product, Sphere, errors, open_field, stack
from inrbridge.radiance import Rays, render_rays

DATA = Path(os.environ.get("INRBRIDGE_DATA", "nowhere")) / "checkpoints"
samples = pytest.mark.skipif(not (DATA / "plenoxels").is_dir(), reason="set INRBRIDGE_DATA to the folder of the sample files")
SVOX2 = ("sh9", "sh9_accel", "aniso_sh4", "tex9", "mlp9", "bg8")


def points(field, n=30, seed=0):
    unit = torch.rand(n, field.domain.unit_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return field.domain.from_unit(unit).float()


def open_(path, **options):
    return PlenoxelsFormat().open(path, **options)


@pytest.mark.parametrize("kind", [1, 4, 255])
@pytest.mark.parametrize("full", [False, True])
def test_svox2(kind, full, write, slow):
    arrays = write.svox2_arrays(kind=kind, full=full)
    field = open_(write(arrays))
    assert field.domain == Product(Box((-1.1, -1.2, -0.5), (1.3, 0.8, 1.1)), Sphere()) and field.channels == 4
    assert ("links" in field.state_dict()) != full and field.table.dtype == torch.float32
    table = np.concatenate([arrays["density_data"], arrays["sh_data"].astype(np.float64)], 1)
    x = points(field).double()
    for coords, found in zip(x.numpy(), field(x).detach().numpy(), strict=True):
        p, d = coords[:3], coords[3:]
        row = slow.trilinear(p, *field.domain.a.bounds, table, arrays["links"].shape, arrays["links"])
        if kind == 1:
            basis = slow.harmonics(d)[:4]
        elif kind == 255:
            basis = slow.network(d, arrays, 2)
        else:  # the texture's outermost points lie on the border of the cube
            basis = slow.trilinear((d + 1) / 2 * 5 + 0.5, [0] * 3, [6] * 3, arrays["basis_data"].reshape(-1, 4), (6, 6, 6))
        truth = [*np.maximum(row[1:].reshape(3, 4) @ basis + 0.5, 0), max(row[0], 0)]
        assert np.abs(found - truth).max() < 1e-5


def test_old_files_of_svox2(write):
    arrays = write.svox2_arrays()
    field = open_(write(arrays))
    arrays["data"] = np.concatenate([arrays.pop("density_data"), arrays.pop("sh_data")], 1).astype(np.float32)
    del arrays["basis_type"]
    old = open_(write(arrays, "old.npz"))
    assert torch.equal(old(points(field)), field(points(field)))
    for name in ("radius", "center"):
        del arrays[name]
    oldest = open_(write(arrays, "oldest.npz"))
    assert oldest.domain.a == Box.centered(3) and any("radius" in text for text in oldest.assumed)


def test_the_background_is_left_out_and_said_to_be(write):
    arrays = write.svox2_arrays()
    field = open_(write(arrays))
    arrays |= {"background_links": np.zeros((8, 4), np.int32), "background_data": np.zeros((32, 2, 4), np.float32)}
    with_background = open_(write(arrays))
    assert torch.equal(with_background(points(field)), field(points(field)))
    assert any("background of 2 layers" in text for text in with_background.assumed)


@pytest.mark.parametrize("data_format", ["SH4", "SH9", "RGBA", "SG3", "ASG2"])
@pytest.mark.parametrize("branching", [2, 3])
def test_svox(data_format, branching, write, slow):
    arrays = write.svox_arrays(data_format, branching)
    field = open_(write(arrays), padding=0.001)
    x = points(field, 80)
    r, n = np.random.default_rng(2).random((20, 3)), branching
    first, second, below = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0]])
    deep = [r, (first + r) / n, (first + (below + r) / n) / n, (second + r) / n]  # in each node
    x[:, :3] = torch.from_numpy((np.concatenate(deep) - arrays["offset"]) / arrays["invradius3"])
    u = arrays["offset"] + x[:, :3].numpy() * arrays["invradius3"]  # in single precision, as svox finds its leaves
    seen = set()
    for t, coords, found in zip(u, x.numpy(), field(x).detach().numpy(), strict=True):
        place = slow.leaf(t, arrays["child"])
        seen.add(place[0])
        cell, d = arrays["data"][place].astype(np.float64), coords[3:].astype(np.float64)
        raw = cell[:-1].reshape(3, -1)
        if data_format.startswith("SH"):
            raw = raw * slow.harmonics(d)[: raw.shape[1]]
        elif data_format == "SG3":
            raw = raw * [np.exp(lobe[0] * (lobe[1:] @ d - 1)) / 3 for lobe in arrays["extra_data"].astype(np.float64)]
        elif data_format == "ASG2":
            raw = raw * [lobe[8:] @ d * np.exp(-lobe[0] * (lobe[2:5] @ d) ** 2 - lobe[1] * (lobe[5:8] @ d) ** 2) / 2
                         for lobe in arrays["extra_data"].astype(np.float64)]  # fmt: skip
        truth = [*slow.sigmoid(raw.sum(1)) * 1.002 - 0.001, max(cell[-1], 0)]
        assert np.abs(found - truth).max() < 1e-5
    assert seen == {0, 1, 2, 3}
    assert field.domain.dim == (3 if data_format == "RGBA" else 6)


def test_old_files_of_svox(write):
    arrays = write.svox_arrays()
    arrays["invradius3"][:] = 0.5
    field = open_(write(arrays))
    for name in ("data_format", "invradius3"):
        del arrays[name]
    old = open_(write(arrays | {"invradius": np.array(0.5, np.float32)}))
    assert torch.equal(old(points(field)), field(points(field)))
    assert any("data_format = SH4" in text for text in old.assumed) and not any("data_format" in text for text in field.assumed)


@pytest.mark.parametrize("retained", [0, 2])
def test_compressed_octrees(retained, write):
    """The first coefficients as they are, the others from tables of colours."""
    arrays, rng = write.svox_arrays(), np.random.default_rng(1)
    palettes = rng.normal(size=(4 - retained, 16, 3)).astype(np.float16)
    places = rng.integers(0, 16, (4 - retained, *arrays["child"].shape)).astype(np.uint16)
    data = arrays.pop("data")
    coefficients = data[..., :-1].reshape(*data.shape[:-1], 3, 4)
    for j in range(4 - retained):
        coefficients[..., retained + j] = palettes[j][places[j]]
    truth = open_(write(arrays | {"data": np.concatenate([coefficients.reshape(*data.shape[:-1], 12), data[..., -1:]], -1)}))
    small = arrays | {"sigma": data[..., -1], "quant_colors": palettes, "quant_map": places}
    if retained:
        small["data_retained"] = np.moveaxis(coefficients[..., :retained], -1, 0)
    field = open_(write(small))
    assert torch.equal(field(points(field)), truth(points(field))) and field.architecture == truth.architecture
    small["quant_map"] = places + np.uint16(1)
    with pytest.raises(errors.CannotOpen, match="quant_map"):
        open_(write(small))


def test_fields_of_equal_shape_stack(write):
    fields = [open_(write(write.svox2_arrays(seed=seed, full=True), f"{seed}.npz")) for seed in range(3)]
    assert len(stack(fields).groups) == 1
    x = points(fields[0])
    assert torch.allclose(stack(fields)(x), torch.stack([field(x) for field in fields]), atol=1e-5)


def test_foreign_fields_are_saved_as_they_are(write, tmp_path):
    for path in (write.svox2(kind=255), write.svox(data_format="SG3")):
        field = open_(path)
        PlenoxelsFormat().save(field, tmp_path / "again.safetensors")
        again = open_field(tmp_path / "again.safetensors")
        assert torch.equal(again(points(field)), field(points(field))) and again.architecture == field.architecture


def _changed(arrays, name, change):
    return arrays | {name: change(arrays[name])}


REFUSED = {
    "links beyond the rows": lambda w: _changed(w.svox2_arrays(), "links", lambda a: a + 99),
    "links of fractions": lambda w: _changed(w.svox2_arrays(), "links", lambda a: a.astype(np.float32)),
    "huge links": lambda w: _changed(w.svox2_arrays(), "links", lambda a: a.astype(np.int64) + 2**40),
    "flat links": lambda w: _changed(w.svox2_arrays(), "links", lambda a: a[0]),
    "no cells": lambda w: _changed(w.svox2_arrays(), "links", lambda a: a[:0]),
    "no rows": lambda w: w.svox2_arrays() | {"density_data": np.zeros((0, 1)), "sh_data": np.zeros((0, 12))},
    "densities of other rows": lambda w: _changed(w.svox2_arrays(), "density_data", lambda a: a[1:]),
    "coefficients for two colours": lambda w: _changed(w.svox2_arrays(), "sh_data", lambda a: a[:, :11]),
    "5 harmonics": lambda w: w.svox2_arrays(functions=5),
    "two radii": lambda w: _changed(w.svox2_arrays(), "radius", lambda a: a[:2]),
    "no radius": lambda w: _changed(w.svox2_arrays(), "radius", lambda a: 0 * a),
    "no number as radius": lambda w: _changed(w.svox2_arrays(), "radius", lambda a: a * np.nan),
    "no number as center": lambda w: _changed(w.svox2_arrays(), "center", lambda a: a * np.inf),
    "unknown basis": lambda w: w.svox2_arrays() | {"basis_type": np.array(7)},
    "basis of a fraction": lambda w: w.svox2_arrays() | {"basis_type": np.array(1.5)},
    "no texture": lambda w: w.svox2_arrays() | {"basis_type": np.array(4)},
    "an uneven texture": lambda w: _changed(w.svox2_arrays(kind=4), "basis_data", lambda a: a[1:]),
    "no network": lambda w: w.svox2_arrays() | {"basis_type": np.array(255)},
    "another layer": lambda w: w.svox2_arrays(kind=255) | {"pt__basis_mlp__8__weight": np.zeros((4, 4))},
    "a layer without number": lambda w: w.svox2_arrays(kind=255) | {"pt__basis_mlp__last__weight": np.zeros((4, 4))},
    "other octaves": lambda w: w.svox2_arrays(kind=255) | {"mlp_posenc_size": np.array(3)},
    "octaves without end": lambda w: w.svox2_arrays(kind=255) | {"mlp_posenc_size": np.array(2**62)},
    "a node beyond": lambda w: _changed(w.svox_arrays(), "child", lambda a: a * 9),
    "a node before": lambda w: _changed(w.svox_arrays(), "child", lambda a: -a),
    "a circle": lambda w: _changed(w.svox_arrays(), "child", _circle),
    "a shared node": lambda w: _changed(w.svox_arrays(), "child", _shared),
    "a deep chain": lambda w: _chain(w.svox_arrays(), 40),
    "uneven cells": lambda w: _changed(w.svox_arrays(), "child", lambda a: a[..., :1]),
    "no nodes": lambda w: _changed(w.svox_arrays(), "child", lambda a: a[:0]),
    "data of other cells": lambda w: _changed(w.svox_arrays(), "data", lambda a: a[1:]),
    "flat data": lambda w: _changed(w.svox_arrays(), "data", lambda a: a[..., 0]),
    "other columns": lambda w: w.svox_arrays() | {"data_format": np.array("SH9")},
    "an unknown kind": lambda w: w.svox_arrays() | {"data_format": np.array("XY4")},
    "no lobes": lambda w: w.svox_arrays() | {"data_format": np.array("SG4")},
    "other lobes": lambda w: w.svox_arrays() | {"data_format": np.array("SG4"), "extra_data": np.zeros((4, 5))},
    "no invradius": lambda w: _changed(w.svox_arrays(), "invradius3", lambda a: 0 * a),
    "a scalar offset": lambda w: _changed(w.svox_arrays(), "offset", lambda a: a[0]),
}


def _circle(child):
    child = child.copy()
    child[3, 0, 0, 0] = -2
    return child


def _shared(child):
    child = child.copy()
    child[2, 0, 0, 0] = 1
    return child


def _chain(arrays, length):
    child = np.zeros((length, 2, 2, 2), np.int32)
    child[:-1, 0, 0, 0] = 1
    return arrays | {"child": child, "data": np.zeros((length, 2, 2, 2, 13), np.float16)}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_damaged_files_are_refused(make, write):
    with pytest.raises(errors.CannotOpen, match=r"its|it has|damaged") as caught:
        open_(write(make(write)))
    assert len(str(caught.value)) < 300


def test_weights_that_are_no_numbers_make_a_field(write):
    arrays = write.svox2_arrays()
    arrays["density_data"][3] = np.nan
    assert open_(write(arrays))(torch.zeros(1, 6)).shape == (1, 4)


def test_dialects(write):
    path = write.svox2()
    assert open_field(path).assumed == ("dialect = svox2 (by the names of the arrays)",)
    assert open_(path, dialect="svox2").assumed == ()
    other = write(write.svox_arrays(), "octree.npz")
    assert "padding = 0 (default of dialect svox)" in open_(other).assumed
    with pytest.raises(errors.CannotOpen, match="do not fit dialect"):
        open_(path, dialect="svox")
    with pytest.raises(errors.UnknownName, match="svox2"):
        open_(path, dialect="svox3")
    with pytest.raises(errors.ConfigError, match="padding"):
        open_(path, padding=0.001)
    with pytest.raises(errors.ConfigError, match="padding"):
        open_(other, padding=3.0)


@samples
@pytest.mark.parametrize("name", SVOX2)
def test_samples_of_svox2_open(name):
    field = open_field(DATA / "plenoxels" / f"minted_torus_{name}.npz")
    with torch.no_grad():
        values = field(points(field, 2000))
    assert bool(values.isfinite().all()) and float(values[:, 3].max()) > 1
    assert any("background" in text for text in field.assumed) == (name == "bg8")


@samples
@pytest.mark.parametrize(("name", "golden"), [("sh9", "sh9"), ("sh9_accel", "sh9"), ("mlp9", "mlp9")])
def test_samples_of_svox2_equal_svox2(name, golden):
    field = open_field(DATA / "plenoxels" / f"minted_torus_{name}.npz")
    with np.load(DATA / "plenoxels" / f"minted_torus_{golden}.golden.npz") as file:
        truth = {key: torch.from_numpy(file[key]) for key in file.files}
    with torch.no_grad():
        found = field(torch.cat([truth["points"], truth["dirs"]], -1))
        basis = field.basis(truth["dirs"], {key: value[None] for key, value in field.state_dict().items()})
    assert (found[:, :3] - truth["rgb"]).abs().max() < 5e-6
    assert (found[:, 3:] - truth["sigma_trilerp"].relu()).abs().max() < 1e-6 * truth["sigma_trilerp"].abs().max() + 2e-6
    assert (basis - truth["basis"]).abs().max() < 1e-6
    assert (march(field, truth["ray_o"], truth["ray_d"]) - truth["ray_rgb"]).abs().max() < 1e-4


@samples
@pytest.mark.parametrize("name", ["aniso_sh4", "tex9", "bg8"])
def test_samples_of_svox2_without_golden_equal_the_slow_twin(name, slow):
    path = DATA / "plenoxels" / f"minted_torus_{name}.npz"
    field = open_field(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    table = np.concatenate([arrays["density_data"], arrays["sh_data"].astype(np.float64)], 1)
    low, high = arrays["center"] - arrays["radius"], arrays["center"] + arrays["radius"]
    x = points(field, 300)
    for coords, found in zip(x.double().numpy(), field(x).detach().numpy(), strict=True):
        row = slow.trilinear(coords[:3], low, high, table, arrays["links"].shape, arrays["links"])
        k, d = (table.shape[1] - 1) // 3, coords[3:]
        basis = slow.harmonics(d)[:k]
        if name == "tex9":
            basis = slow.trilinear((d + 1) / 2 * 15 + 0.5, [0] * 3, [16] * 3, arrays["basis_data"].reshape(-1, k), (16,) * 3)
        truth = np.array([*np.maximum(row[1:].reshape(3, k) @ basis + 0.5, 0), max(row[0], 0)])
        assert np.abs(found - truth).max() < 2e-5


@samples
def test_the_sample_of_svox_equals_svox():
    field = open_field(DATA / "plenoctree" / "minted_sphere_sh9.npz")
    with np.load(DATA / "plenoctree" / "minted_sphere_sh9.golden.npz") as file:
        places, values = torch.from_numpy(file["points"]), torch.from_numpy(file["values"])
    directions = torch.nn.functional.normalize(places + 0.1, dim=-1)
    with torch.no_grad():
        found = field(torch.cat([places, directions], -1))
        basis = field.basis(directions, {})
    truth = torch.sigmoid((values[:, :27].unflatten(1, (3, 9)) * basis[:, None]).sum(-1))
    assert torch.equal(found[:, 3], values[:, 27].relu()) and torch.allclose(found[:, :3], truth, atol=1e-6)


@samples
def test_the_sample_of_colours_equals_the_slow_twin(slow):
    path = DATA / "plenoctree" / "minted_sphere_rgba.npz"
    field = open_field(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    x = points(field, 500)
    u = arrays["offset"] + x.numpy() * arrays["invradius3"]
    cells = np.stack([arrays["data"][slow.leaf(t, arrays["child"])].astype(np.float64) for t in u])
    truth = np.concatenate([slow.sigmoid(cells[:, :3]), np.maximum(cells[:, 3:], 0)], 1)
    assert np.abs(field(x).detach().numpy() - truth).max() < 1e-5


def march(field, origins, directions, step=0.5, background=1.0):
    """svox2's renderer: samples every half a cell from where a ray enters the lattice; step lengths in world units."""
    directions = torch.nn.functional.normalize(directions, dim=-1)
    counts = torch.tensor(field.cells.resolution, dtype=torch.float32)
    low, high = (torch.tensor(end) for end in field.domain.a.bounds)
    start = (origins - low) / (high - low) * counts - 0.5
    along = directions / (high - low) * counts
    world = 1 / along.norm(dim=-1, keepdim=True)  # of one cell
    along = along * world
    first, second = (-0.5 - start) / along, (counts - 0.5 - start) / along
    near, far = torch.minimum(first, second).amax(-1, keepdim=True).clamp(min=0), torch.maximum(first, second).amin(-1)
    t = near + step * torch.arange(int(2 * (far - near[:, 0]).max() / step) // 2 + 1)
    places = (start[:, None] + t[..., None] * along[:, None] + 0.5) / counts * (high - low) + low
    with torch.no_grad():
        values = field(torch.cat([places, directions[:, None].expand_as(places)], -1))
    density = torch.where((t <= far[:, None]) & (values[..., 3] > 1e-10), values[..., 3], torch.zeros(()))
    kept = torch.exp(-step * world * density)
    light = torch.cumprod(torch.cat([torch.ones_like(near), kept], 1), 1)
    seen = ((light[:, :-1] - light[:, 1:])[..., None] * values[..., :3]).sum(1)
    return seen + background * light[:, -1:]


@samples
def test_rays_through_our_renderer_come_near_svox2():
    """It takes its samples elsewhere."""
    field = open_field(DATA / "plenoxels" / "minted_torus_sh9.npz")
    with np.load(DATA / "plenoxels" / "minted_torus_sh9.golden.npz") as file:
        origins, directions, truth = (torch.from_numpy(file[key]) for key in ("ray_o", "ray_d", "ray_rgb"))
    directions = torch.nn.functional.normalize(directions, dim=-1)
    rays = Rays(origins, directions, torch.zeros(len(origins)), torch.full((len(origins),), 1e9))
    with torch.no_grad():
        found = render_rays(field, rays, samples=256, background=torch.ones(3)).colours
    assert (found - truth).abs().max() < 2e-3
