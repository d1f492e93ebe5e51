"""What fields share that evaluate many of their architecture at once, against slow twins."""

import pytest
import torch

from inrbridge import batched


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rows_of(*shape, most=30, dtype=torch.int64):
    return torch.randint(most, shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("width", [1, 2, 20, 40])
def test_sums_of_rows_and_their_gradients_equal_the_slow_twin(width, dtype):
    table, weights, rows = rand(30, width).requires_grad_(), rand(50, 4, seed=1).requires_grad_(), rows_of(50, 4, dtype=dtype)
    cotangent = rand(50, width, seed=3)
    slow = (table[rows.long()] * weights[..., None]).sum(1)
    assert torch.allclose(batched.weighted_rows(table, rows, weights), slow, atol=1e-5)
    truth = torch.autograd.grad((slow * cotangent).sum(), (table, weights))
    for keep in (False, True):  # by counting, and by adding, which has a derivative of its own
        found = torch.autograd.grad(
            (batched.weighted_rows(table, rows, weights) * cotangent).sum(), (table, weights), create_graph=keep
        )
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, truth, strict=True))


def test_first_and_second_derivatives_of_sums_of_rows():
    table = rand(7, 3, dtype=torch.float64).requires_grad_()
    weights = rand(5, 4, seed=1, dtype=torch.float64).requires_grad_()
    rows = rows_of(5, 4, most=7)
    assert torch.autograd.gradcheck(lambda t, w: batched.weighted_rows(t, rows, w), (table, weights))
    assert torch.autograd.gradgradcheck(lambda t, w: batched.weighted_rows(t, rows, w), (table, weights))


def test_the_weights_decide_the_dtype_of_sums_of_rows():
    table, rows, weights = rand(7, 3).half(), rows_of(5, 4, most=7, dtype=torch.int32), rand(5, 4, dtype=torch.float64)
    found = batched.weighted_rows(table, rows, weights)
    assert found.dtype == torch.float64
    assert torch.allclose(found, (table.double()[rows.long()] * weights[..., None]).sum(1))


@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_many_fields_equal_a_loop(bias):
    layers = [torch.nn.Linear(4, 3, bias) for _ in range(5)]
    x = rand(5, 6, 4)
    weight = torch.stack([layer.weight for layer in layers])
    found = batched.linear(x, weight, torch.stack([layer.bias for layer in layers]) if bias else None)
    assert torch.allclose(found, torch.stack([layer(row) for layer, row in zip(layers, x, strict=True)]), atol=1e-6)


def test_a_layer_without_values_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    layer = batched.unset_linear(4, 3, bias=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert layer.weight.shape == (3, 4) and layer.bias is None and layer.weight.device.type == "cpu"
    with torch.device("meta"):
        assert batched.unset_linear(4, 3).weight.is_meta


def test_gradients_are_asked_of_coordinates_or_states_while_they_are_kept():
    plain, learning = rand(2), rand(2).requires_grad_()
    assert not batched.asks_gradient(plain, [plain])
    assert batched.asks_gradient(learning, []) and batched.asks_gradient(plain, [plain, learning])
    with torch.no_grad():
        assert not batched.asks_gradient(learning, [learning])


def test_runs_cover_everything_once():
    assert [list(range(7))[run] for run in batched.slices(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [list(range(0))[run] for run in batched.slices(0, 3)] == [[]]
