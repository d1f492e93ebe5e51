"""What fields share that evaluate many of their architecture at once, against slow twins."""

from itertools import pairwise

import pytest
import torch

from inrbridge import batched
from inrbridge.compiled import building
from inrbridge.compiled import perceptron as compiled


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_many_fields_equal_a_loop(bias):
    layers = [torch.nn.Linear(4, 3, bias) for _ in range(5)]
    x = rand(5, 6, 4)
    weight = torch.stack([layer.weight for layer in layers])
    found = batched.linear(x, weight, torch.stack([layer.bias for layer in layers]) if bias else None)
    assert torch.allclose(found, torch.stack([layer(row) for layer, row in zip(layers, x, strict=True)]), atol=1e-6)


def drawn(b, widths, kinds, dtype, bias=True, omega=3.0):
    """Layers of b networks with weights of their own."""
    draw = torch.Generator().manual_seed(7)
    layers = []
    for (a, c), kind in zip(pairwise(widths), kinds, strict=True):
        weight = torch.randn(b, c, a, generator=draw, dtype=dtype) / a**0.5
        shift = torch.randn(b, c, generator=draw, dtype=dtype) if bias else None
        layers.append(batched.Layer(weight, shift, kind, omega))
    return layers


def one_by_one(x, layers):
    """The slow twin: field after field by torch's own layers."""
    rows = []
    for i in range(len(layers[0].weight)):
        y = x if x.ndim == 2 else x[i]
        for weight, bias, kind, omega in layers:
            y = torch.nn.functional.linear(y, weight[i], None if bias is None else bias[i])
            known = {"sine": lambda z, omega=omega: torch.sin(omega * z), "relu": torch.relu, "identity": lambda z: z,
                     "waves": lambda z: torch.cat([z.chunk(2, -1)[0].cos(), z.chunk(2, -1)[1].sin()], -1)}  # fmt: skip
            y = known.get(kind, kind)(y)
        rows.append(y)
    return torch.stack(rows)


def leaves(x, layers):
    return [x, *(value for layer in layers for value in layer[:2] if value is not None)]


@pytest.fixture(params=["compiled", "plain"])
def path(request, monkeypatch):
    """Both paths of networks on the CPU."""
    if request.param == "plain":
        monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    elif building._compiler() is None:
        pytest.skip("there is no C++ compiler here: the plain path does the work")
    else:
        assert compiled.available(torch.zeros(1, 1), []), "the kernels do not compile"
    return request.param


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("b", "n", "widths", "kinds"),
    [
        (3, 700, [2, 33, 32, 1], ["sine", "sine", "identity"]),
        (5, 37, [40, 17, 5, 50, 9], ["relu", "identity", "sine", "relu"]),
        (1, 1300, [3, 64, 4], ["sine", torch.tanh]),
        (2, 300, [3, 250, 250, 2], ["sine", "relu", "identity"]),  # so wide that values are kept
        (2, 50, [2, 20, 20, 3], ["sine", torch.sigmoid, "sine"]),
        (3, 90, [2, 22, 9, 6], ["waves", "relu", "waves"]),
        (2, 70, [2, 220, 220, 3], ["waves", "sine", "sine"]),
        (4, 0, [1, 1, 1], ["relu", "identity"]),
    ],
)
def test_networks_and_their_gradients_equal_a_loop(path, b, n, widths, kinds, shared, dtype, close):
    layers = drawn(b, widths, kinds, dtype, bias=b != 5)
    x = rand(*(() if shared else (b,)), n, widths[0], dtype=dtype)
    with torch.no_grad():
        truth = one_by_one(x, layers)
        assert torch.allclose(batched.perceptron(x, layers), truth, atol=close)
    inputs = [value.requires_grad_() for value in leaves(x, layers)]
    cotangent = rand(*truth.shape, seed=3, dtype=dtype)
    expected = torch.autograd.grad(one_by_one(x, layers), inputs, cotangent)
    for keep in (False, True):  # a graph of the gradients takes the plain path
        found = torch.autograd.grad(batched.perceptron(x, layers), inputs, cotangent, create_graph=keep)
        for a, e in zip(found, expected, strict=True):
            assert torch.allclose(a, e, atol=close * max(1.0, float(e.abs().max()) if e.numel() else 0.0))


def test_networks_are_twice_differentiable(path):
    layers = drawn(2, [2, 5, 1], ["sine", "identity"], torch.float64)
    x = rand(3, 2, dtype=torch.float64)

    def run(x, *tensors):
        pairs = zip(tensors[::2], tensors[1::2], layers, strict=True)
        return batched.perceptron(x, [layer._replace(weight=w, bias=b) for w, b, layer in pairs])

    inputs = [value.requires_grad_() for value in leaves(x, layers)]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_only_the_gradients_that_are_asked_for_are_there(path):
    layers = drawn(2, [2, 9, 1], ["sine", "identity"], torch.float32)
    x = rand(6, 2).requires_grad_()
    (moved,) = torch.autograd.grad(batched.perceptron(x, layers).sum(), x)
    (truth,) = torch.autograd.grad(one_by_one(x, layers).sum(), x)
    assert torch.allclose(moved, truth, atol=1e-5)
    layers[0].bias.requires_grad_()
    (alone,) = torch.autograd.grad(batched.perceptron(x.detach(), layers).sum(), layers[0].bias)
    (truth,) = torch.autograd.grad(one_by_one(x.detach(), layers).sum(), layers[0].bias)
    assert torch.allclose(alone, truth, atol=1e-5)


def test_the_number_of_threads_changes_nothing():
    layers = drawn(3, [2, 40, 40, 3], ["sine", "sine", "identity"], torch.float32)
    x = rand(1500, 2)
    inputs = [value.requires_grad_() for value in leaves(x, layers)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values = batched.perceptron(x, layers)
            found.append([values, *torch.autograd.grad(values.square().sum(), inputs)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_networks_pass_through_transforms_of_functions(path):
    layers = drawn(2, [2, 9, 1], ["sine", "identity"], torch.float32)
    x = rand(4, 6, 2)
    found = torch.func.vmap(lambda points: batched.perceptron(points, layers))(x)
    assert torch.allclose(found, torch.stack([one_by_one(points, layers) for points in x]), atol=1e-5)


def test_layers_take_the_dtype_of_the_points(path):
    layers = drawn(2, [2, 9, 1], ["sine", "identity"], torch.float32)
    x = rand(6, 2, dtype=torch.float64)
    doubled = [layer._replace(weight=layer.weight.double(), bias=layer.bias.double()) for layer in layers]
    assert torch.allclose(batched.perceptron(x, layers), one_by_one(x, doubled))


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


@pytest.mark.parametrize("widths", [[2, 33, 32, 1], [3, 130, 2]])
def test_gradients_of_a_fit_are_those_of_its_squares(widths):
    if building._compiler() is None:
        pytest.skip("there is no C++ compiler here: autograd does the work")
    kinds = [*["sine"] * (len(widths) - 2), "identity"]
    layers = drawn(3, widths, kinds, torch.float64)
    x = rand(500, widths[0], dtype=torch.float64)
    targets = rand(3, 500, widths[-1], seed=4, dtype=torch.float64)
    found = batched.fitting_gradients(x, layers, targets, 0.25)
    inputs = [value.requires_grad_() for value in leaves(x, layers)][1:]
    expected = torch.autograd.grad(0.25 * (one_by_one(x, layers) - targets).square().sum(), inputs)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))
    assert batched.fitting_gradients(x, [layers[0]._replace(kind=torch.tanh)], targets, 1.0) is None
