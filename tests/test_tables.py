"""Sums of weighted rows of many fields' tables: compiled and plain, side by side and one after the other, against slow twins."""

import copy

import pytest
import torch
from torch.autograd import forward_ad

from inrbridge import batched, tables
from inrbridge.compiled import rows as compiled

WIDTHS = [1, 2, 3, 4, 16, 45]


@pytest.fixture(params=["compiled", "plain"])
def kernels(request, monkeypatch):
    """Both paths; the compiled one where there is a compiler."""
    if request.param == "plain":
        monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    elif not compiled.available(torch.zeros(1, 1, 1), torch.float32):
        pytest.skip("no C++ compiler here: the plain path alone is tested")
    return request.param


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rows_of(*shape, most=30, dtype=torch.int64):
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


def cells(b, shared, levels=2, n=21, k=4, most=30, dtype=torch.float32, index=torch.int64):
    shape = (levels, n, k) if shared else (levels, b, n, k)
    return rows_of(*shape, most=most, dtype=index), rand(*shape, seed=1, dtype=dtype)


def lay(values, beside):
    return batched.side_by_side(values.unbind(0)) if beside else values


def slow(values, rows, weights):
    """One field after the other, one level after the other."""
    found = []
    for i, table in enumerate(values):
        own = (rows, weights) if rows.ndim == 3 else (rows[:, i], weights[:, i])
        levels = [(table[r.long()].to(w.dtype) * w[..., None]).sum(1) for r, w in zip(*own, strict=True)]
        found.append(torch.cat(levels, -1))
    return torch.stack(found)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_sums_of_rows_equal_the_slow_twin(kernels, width, beside, shared, dtype, near):
    for b, k, index in ((1, 4, torch.int32), (9, 8, torch.int64), (5, 3, torch.int64)):
        values = lay(rand(b, 30, width, dtype=dtype), beside)
        rows, weights = cells(b, shared, k=k, dtype=dtype, index=index)
        found = batched.table_rows(values, rows, weights)
        assert found.is_contiguous() and found.dtype == dtype
        assert torch.allclose(found, slow(values, rows, weights), rtol=near, atol=near)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
def test_gradients_equal_those_of_the_slow_twin(kernels, width, beside, shared):
    values = rand(5, 30, width, dtype=torch.float64).requires_grad_()
    rows, weights = cells(5, shared, dtype=torch.float64)
    weights.requires_grad_()
    cotangent = rand(5, 21, 2 * width, seed=3, dtype=torch.float64)

    def gradients(function):
        return torch.autograd.grad((function(lay(values, beside), rows, weights) * cotangent).sum(), (values, weights))

    found, expected = gradients(batched.table_rows), gradients(slow)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_first_and_second_derivatives(kernels, shared):
    values = rand(2, 7, 3, dtype=torch.float64).requires_grad_()
    rows, weights = cells(2, shared, n=3, most=7, dtype=torch.float64)
    weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda t, w: batched.table_rows(t, rows, w), (values, weights))
    assert torch.autograd.gradgradcheck(lambda t, w: batched.table_rows(t, rows, w), (values, weights))


@pytest.mark.parametrize("shared", [True, False])
def test_derivatives_in_forward_mode(kernels, shared):
    """Also where no gradient is asked for, and so a kernel without derivatives would be the quickest."""
    values = rand(3, 6, 2, dtype=torch.float64).requires_grad_()
    rows, weights = cells(3, shared, n=4, k=2, most=6, dtype=torch.float64)
    weights.requires_grad_()
    apply = lambda t, w: batched.table_rows(t, rows, w)  # noqa: E731
    assert torch.autograd.gradcheck(apply, (values, weights), check_forward_ad=True)
    frozen = values.detach(), weights.detach()
    for at in (0, 1):
        directions = [torch.rand_like(t) if place == at else torch.zeros_like(t) for place, t in enumerate(frozen)]
        expected = torch.autograd.functional.jvp(apply, frozen, tuple(directions))[1]
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(t, d) if place == at else t
                     for place, (t, d) in enumerate(zip(frozen, directions, strict=True))]  # fmt: skip
            torch.testing.assert_close(forward_ad.unpack_dual(apply(*duals)).tangent, expected)
        torch.testing.assert_close(torch.func.jvp(apply, frozen, tuple(directions))[1], expected)


def test_forward_over_backward(kernels):
    """Second derivatives as `torch.func.hessian` takes them."""
    values = rand(2, 6, 2, dtype=torch.float64)
    rows, weights = cells(2, True, n=3, k=2, most=6, dtype=torch.float64)
    energy = lambda t, w: batched.table_rows(t, rows, w).pow(3).sum()  # noqa: E731
    for at, given in ((0, values), (1, weights)):
        alone = lambda t, at=at: energy(*[t if place == at else x for place, x in enumerate((values, weights))])  # noqa: E731
        torch.testing.assert_close(torch.func.hessian(alone)(given), torch.autograd.functional.hessian(alone, given))


def test_copies_of_points_and_of_tables_under_vmap(kernels):
    values, more = rand(2, 9, 3, dtype=torch.float64), rand(4, 2, 9, 3, seed=5, dtype=torch.float64)
    for shared in (True, False):
        rows, weights = cells(2, shared, n=3, most=9, dtype=torch.float64)
        copies = torch.stack([weights * i for i in range(4)])
        loop = torch.stack([slow(values, rows, w) for w in copies])
        assert torch.allclose(torch.vmap(batched.table_rows, (None, None, 0))(values, rows, copies), loop)
        many = torch.stack([slow(t, rows, w) for t, w in zip(more, copies, strict=True)])
        assert torch.allclose(torch.vmap(batched.table_rows, (0, None, 0))(more, rows, copies), many)

        def energy(w, t=values, rows=rows):
            return batched.table_rows(t, rows, w).square().sum()

        slopes = torch.vmap(torch.func.grad(energy))(copies)
        expected = []
        for w in copies:
            w = w.clone().requires_grad_()
            expected += torch.autograd.grad(slow(values, rows, w).square().sum(), w)
        assert torch.allclose(slopes, torch.stack(expected))
        by_tables = torch.vmap(torch.func.grad(lambda t, w, rows=rows: energy(w, t, rows)))(more, copies)
        moved = more.clone().requires_grad_()
        together = torch.stack([slow(t, rows, w) for t, w in zip(moved, copies, strict=True)]).square().sum()
        assert torch.allclose(by_tables, torch.autograd.grad(together, moved)[0])


@pytest.mark.parametrize("beside", [True, False])
def test_short_numbers_are_summed_in_the_dtype_of_the_weights(kernels, beside):
    for short in (torch.bfloat16, torch.float16):
        for width in WIDTHS:
            values = lay(rand(5, 30, width).to(short), beside)
            for shared in (True, False):
                rows, weights = cells(5, shared)
                found = batched.table_rows(values, rows, weights)
                assert found.dtype == torch.float32
                assert torch.allclose(found, slow(values.float(), rows, weights), atol=1e-5)
                few = (rows[..., :1, :], weights[..., :1, :])  # less than the table holds
                assert torch.allclose(batched.table_rows(values, *few), found[:, :1], atol=1e-6)
                learning = values.detach().requires_grad_()
                assert torch.allclose(batched.table_rows(learning, rows, weights), found, atol=1e-6)
                assert torch.allclose(batched.table_rows(learning, *few), found[:, :1], atol=1e-6)
                halves = batched.table_rows(values, rows, weights.to(short))
                assert halves.dtype == short and torch.allclose(halves.float(), found, rtol=2e-2)
    rows, weights = cells(5, True, dtype=torch.float64)
    assert batched.table_rows(values, rows, weights).dtype == torch.float64


def test_gradients_reach_short_numbers(kernels):
    values = rand(2, 30, 4).bfloat16().requires_grad_()
    rows, weights = cells(2, True)
    batched.table_rows(values, rows, weights).sum().backward()
    expected = torch.autograd.grad(slow(values, rows, weights).sum(), values)
    assert values.grad.dtype == torch.bfloat16 and torch.allclose(values.grad, *expected, rtol=2e-2)


def test_one_table_alone(kernels):
    table, rows, weights = rand(30, 5), rows_of(50, 4, dtype=torch.int32), rand(50, 4, seed=1)
    truth = (table[rows.long()] * weights[..., None]).sum(1)
    assert torch.allclose(batched.weighted_rows(table, rows, weights), truth, atol=1e-6)
    assert batched.weighted_rows(table.half(), rows, weights.double()).dtype == torch.float64


def test_rows_beyond_a_table_are_refused(kernels):
    for row in (-1, 30):
        with pytest.raises((IndexError, RuntimeError)):
            batched.table_rows(rand(2, 30, 2), torch.full((1, 4, 4), row), rand(1, 4, 4))


@pytest.mark.parametrize("shape", [(0, 30, 2), (3, 30, 0), (3, 30, 2)])
def test_nothing_to_sum(kernels, shape):
    rows, weights = cells(shape[0], True, n=0 if shape == (3, 30, 2) else 4)
    values = rand(*shape).requires_grad_()
    found = batched.table_rows(values, rows, weights.requires_grad_())
    assert found.shape == (shape[0], rows.shape[1], 2 * shape[2])
    found.sum().backward()
    assert not values.grad.any() and not weights.grad.any()


def test_results_do_not_depend_on_the_number_of_threads(kernels):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for beside in (True, False):
                for shared in (True, False):
                    values = lay(rand(6, 40, 2), beside).detach().requires_grad_()
                    rows, weights = cells(6, shared, n=700, most=40)
                    found = batched.table_rows(values, rows, weights.requires_grad_())
                    results.append((found, *torch.autograd.grad(found.square().sum(), (values, weights))))
    finally:
        torch.set_num_threads(before)
    one, two = results[:4], results[4:]
    assert all(torch.equal(a, b) for first, second in zip(one, two, strict=True) for a, b in zip(first, second, strict=True))


def test_side_by_side_is_a_stack_in_another_order():
    values = [rand(5, 4, 3, seed=seed) for seed in range(3)]
    found = batched.side_by_side(values)
    assert torch.equal(found, torch.stack(values)) and found.stride() == (3, 36, 9, 1)
    assert tables.side_by_side(values[:1]).shape == (1, 5, 4, 3)


def test_points_are_recalled_by_value():
    calls = []

    def double(points):
        calls.append(points)
        return 2 * points

    recall, sets = batched.Recall(), [rand(5, 2, seed=seed) for seed in range(3)]
    for _ in range(2):
        for points in sets:
            assert torch.equal(recall(double, points.clone()), 2 * points)
    assert len(calls) == 3
    sets[1][0, 0] = 7  # the same tensor, other points
    assert torch.equal(recall(double, sets[1]), 2 * sets[1]) and len(calls) == 4
    assert recall(double, sets[1].double()).dtype == torch.float64 and len(calls) == 5
    for seed in range(3, 30):
        recall(double, rand(5, 2, seed=seed))
    assert len(recall._kept) == tables._SETS_KEPT
    moved = rand(5, 2, seed=29).requires_grad_()
    assert recall(double, moved).requires_grad and not copy.deepcopy(recall)._kept
    assert torch.equal(torch.vmap(lambda x: recall(double, x))(sets[0]), 2 * sets[0])
