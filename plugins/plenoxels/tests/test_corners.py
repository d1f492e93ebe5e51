"""The compiled kernel that finds corners against plain torch, number by number."""

import pytest
import torch
from inrbridge_plenoxels import corners
from inrbridge_plenoxels.lattice import Lattice

# on and beyond the border, beyond what 32 and 64 bits hold, and no numbers at all
STRANGE = (0.0, -0.0, 1.0, 1 - 2**-24, 0.5, -1e-40, 7.5, -3.0, 1e9, -1e9, 1e12, 1e30, -1e30, float("inf"), -float("inf"),
           float("nan"))  # fmt: skip
RESOLUTIONS = ((9,), (1,), (5, 7), (2, 1), (3, 4, 6), (1, 2, 1), (4, 3, 2, 5))


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    monkeypatch.delenv("INRBRIDGE_COMPILED", raising=False)
    if not corners.available(torch.zeros(1, 1), (3,), None):
        pytest.skip("no C++ compiler")


@pytest.fixture
def plain(monkeypatch):
    """Find corners in plain torch."""

    def find(lattice, *given):
        with monkeypatch.context() as patch:
            patch.setenv("INRBRIDGE_COMPILED", "0")
            return lattice.find(*given)

    return find


def points(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(shape[-2])
    inside = 1.4 * torch.rand(*shape, dtype=torch.float64, generator=generator) - 0.2
    strange = torch.tensor(STRANGE, dtype=torch.float64)[torch.randint(len(STRANGE), shape, generator=generator)]
    return torch.where(torch.rand(*shape[:-1], 1, generator=generator) < 0.5, inside, strange).to(dtype)


def links(lattice, b):
    """Cells of b fields in an order of their own, and many that are kept by none."""
    generator = torch.Generator().manual_seed(b)
    first = lattice.buffers()["links"].flatten()
    orders = [torch.randperm(len(first), generator=generator) for _ in range(b)]
    return torch.stack([first[order] for order in orders]).unflatten(1, lattice.resolution)


def assert_same(found, expected):
    assert torch.equal(found[0].long(), expected[0]) and found[1].dtype == expected[1].dtype
    assert torch.equal(found[1].isnan(), expected[1].isnan()) and torch.equal(found[1].nan_to_num(), expected[1].nan_to_num())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_it_equals_plain_torch(resolution, own, dtype, plain):
    for n in (0, 1, 150):
        u = points(*([3, n] if own else [n]), len(resolution), dtype=dtype)
        lattice = Lattice(resolution)
        assert_same(lattice.find(u, {}, 3), plain(lattice, u, {}, 3))
        sparse = Lattice(resolution, 1 + lattice.rows // 3)
        states = {"links": links(sparse, 3)}
        assert_same(sparse.find(u, states, 3), plain(sparse, u, states, 3))


def test_links_that_lie_otherwise(plain):
    lattice, u = Lattice((5, 4, 6), 40), points(3, 90, 3)
    one, two = links(lattice, 1), links(lattice, 6)
    for given in (one.expand(3, *one.shape[1:]), two[::2], two[:3].transpose(1, 2).contiguous().transpose(1, 2)):
        assert_same(lattice.find(u, {"links": given}, 3), plain(lattice, u, {"links": given}, 3))
    apart = u.mT.contiguous().mT
    assert_same(lattice.find(apart, {"links": two[:3]}, 3), plain(lattice, u, {"links": two[:3]}, 3))


def test_places_of_many_bits(plain):
    for lattice in (Lattice((2**30,)), Lattice((40000, 30000)), Lattice((1001, 999, 1003))):
        for dtype in (torch.float32, torch.float64):
            u = points(3000, lattice.dim, dtype=dtype)
            assert_same(lattice.find(u, {}, 1), plain(lattice, u, {}, 1))


def test_any_number_of_threads_finds_the_same():
    lattice, u, before = Lattice((5, 4, 6), 40), points(3, 900, 3), torch.get_num_threads()
    found, states = [], {"links": links(lattice, 3)}
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(lattice.find(u, states, 3))
    finally:
        torch.set_num_threads(before)
    for rows, weights in found[1:]:
        assert torch.equal(rows, found[0][0]) and torch.equal(weights.nan_to_num(), found[0][1].nan_to_num())


def test_what_the_kernel_does_not_serve_is_left_to_torch():
    lattice, u = Lattice((5, 7)), points(6, 2)
    others = u.half(), u.to("meta"), u[:, :1], u.clone().requires_grad_()
    assert corners.available(u, (5, 7), None) and not any(corners.available(other, (5, 7), None) for other in others)
    rows, weights = torch.func.vmap(lambda x: lattice.find(x, {}, 1))(u.reshape(2, 3, 2))
    expected = lattice.find(u, {}, 1)
    assert torch.equal(rows.flatten(0, 1), expected[0].long())
    assert torch.equal(weights.flatten(0, 1).nan_to_num(), expected[1].nan_to_num())
    assert lattice.find(u.clone().requires_grad_(), {}, 1)[1].requires_grad


def test_links_of_another_lattice_are_no_reason_to_read_elsewhere():
    lattice = Lattice((5, 4, 6), 40)
    some = links(lattice, 3)
    with pytest.raises(RuntimeError):
        lattice.find(points(2, 90, 3), {"links": some[:1]}, 2)
    with pytest.raises((RuntimeError, IndexError)):
        lattice.find(torch.ones(9, 3), {"links": some[:, :2]}, 3)
