"""The compiled kernel that finds cells against plain torch, number by number."""

import copy
import itertools
import pickle

import pytest
import torch
from inrbridge_ngp import cells
from inrbridge_ngp.levels import GRIDS, HASHES, INTERPOLATIONS, LAYOUTS, GridSpec

DTYPES = (torch.float32, torch.float64)
# beyond the cube, beyond what 32 and 64 bits hold, and no numbers at all
STRANGE = (0.0, -0.0, 1.0, 1 - 2**-24, -1e-40, 1e6, -3e7, 1e9, -1e9, 2**31, 2**33 / 3, 1e12, -1e12, 9.3e18, -9.3e18, 1e30, -1e30,
           float("inf"), -float("inf"), float("nan"))  # fmt: skip
# levels that fit their rows and hashed ones, sizes that are no power of two, a coarser level after a finer one
SHAPES = ({"base": 3, "growth": 1.7, "log2_table": 8}, {"base": 16, "growth": 1.38, "log2_table": 6},
          {"base": 5, "growth": 0.7, "log2_table": 9})  # fmt: skip


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    monkeypatch.delenv("INRBRIDGE_COMPILED", raising=False)
    if not cells.available(torch.zeros(1, 1), 1):
        pytest.skip("no C++ compiler")


@pytest.fixture
def plain(monkeypatch):
    """Find cells in plain torch."""

    def find(spec, u):
        with monkeypatch.context() as patch:
            patch.setenv("INRBRIDGE_COMPILED", "0")
            return spec.cells(u)

    return find


def points(m, dim, dtype):
    """Points in the unit cube and somewhat beyond."""
    return (1.4 * torch.rand(m, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(m)) - 0.2).to(dtype)


def strange(m, dim, dtype):
    chosen = torch.randint(len(STRANGE), (m, dim), generator=torch.Generator().manual_seed(m))
    return torch.tensor(STRANGE, dtype=dtype)[chosen]


def assert_same(found, expected, spec):
    rows, weights = found
    assert rows.dtype == expected[0].dtype and weights.dtype == expected[1].dtype
    assert torch.equal(rows, expected[0])
    assert torch.equal(weights.isnan(), expected[1].isnan()) and torch.equal(weights.nan_to_num(), expected[1].nan_to_num())
    assert not rows.numel() or (int(rows.min()) >= 0 and int(rows.max()) < spec.rows)


@pytest.mark.parametrize("dim", range(1, 8))
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_equals_plain_torch(layout, interpolation, dim, plain):
    hashes = itertools.cycle(HASHES)
    for grid, shape, dtype in itertools.product(GRIDS, SHAPES, DTYPES):
        spec = GridSpec(dim, 4, 2, grid=grid, hash=next(hashes), interpolation=interpolation, layout=layout, **shape)
        for u in (points(70, dim, dtype), strange(40, dim, dtype), torch.cat([points(66, dim, dtype), strange(1, dim, dtype)])):
            assert_same(spec.cells(u), plain(spec, u), spec)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3])
def test_many_fine_levels(dim, dtype, plain):
    """Positions of many bits, where a product that is rounded once too seldom tells."""
    for layout, hashed in itertools.product(LAYOUTS, ("coherent-prime", "prime")):
        spec = GridSpec(dim, 24, 2, 14, 16, 1.9, hash=hashed, layout=layout)
        u = points(2000, dim, dtype)
        assert_same(spec.cells(u), plain(spec, u), spec)


def test_tables_beyond_32_bits(plain):
    spec = GridSpec(2, 4, 1, 30, 2**17, 1.5)
    found = spec.cells(points(50, 2, torch.float32))
    assert found[0].dtype == torch.int64 and int(found[0].max()) > 2**31
    assert_same(found, plain(spec, points(50, 2, torch.float32)), spec)


@pytest.mark.parametrize("m", [0, 1, 63, 64, 65])
def test_numbers_of_points(m, plain):
    spec = GridSpec(3, 5, 2, 8, 3, 1.7)
    assert_same(spec.cells(points(m, 3, torch.float32)), plain(spec, points(m, 3, torch.float32)), spec)


def test_points_that_do_not_lie_side_by_side(plain):
    spec, u = GridSpec(3, 5, 2, 8, 3, 1.7), points(90, 5, torch.float32)[::2, 1:4]
    assert_same(spec.cells(u), plain(spec, u), spec)


def test_any_number_of_threads_finds_the_same():
    spec, u, before = GridSpec(2, 16, 2, 14, 16, 1.4), points(3000, 2, torch.float32), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(spec.cells(u))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for some in found[1:] for a, b in zip(some, found[0], strict=True))


def test_copies_find_the_same():
    spec, u = GridSpec(2, 5, 2, 8, 3, 1.7), points(40, 2, torch.float32)
    found = spec.cells(u)
    for other in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert other == spec and all(torch.equal(a, b) for a, b in zip(other.cells(u), found, strict=True))


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_differentiable_beside_compiled_rows(layout, interpolation, plain):
    spec = GridSpec(2, 5, 2, 8, 3, 1.7, interpolation=interpolation, layout=layout)
    u = points(40, 2, torch.float64).requires_grad_()
    rows, weights = spec.cells(u)
    expected_rows, expected = plain(spec, u)
    cotangent = torch.rand(weights.shape, dtype=weights.dtype, generator=torch.Generator().manual_seed(0))
    slopes, truth = (torch.autograd.grad(values, u, cotangent)[0] for values in (weights, expected))
    assert torch.equal(rows, expected_rows) and torch.equal(weights, expected) and torch.equal(slopes, truth)
    with torch.no_grad():
        assert not spec.cells(u)[1].requires_grad


def test_what_the_kernel_does_not_serve_is_left_to_torch():
    spec, u = GridSpec(2, 3, 2, 5, 3, 1.7), points(6, 2, torch.float32)
    assert cells.available(u, 2) and not any(cells.available(other, 2) for other in (u.half(), u.to("meta"), u[:, :1]))
    with pytest.raises(RuntimeError):
        spec.cells(torch.zeros(4, 3))
    rows, weights = torch.func.vmap(spec.cells)(u.reshape(2, 3, 2))
    expected = spec.cells(u)
    assert torch.equal(rows.transpose(0, 1).flatten(1, 2), expected[0])
    assert torch.equal(weights.transpose(0, 1).flatten(1, 2), expected[1])
