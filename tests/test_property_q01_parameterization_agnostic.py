"""Q1: what a net sees of a field is its values, not the parameters they came from (Wang & Golland 2023, proposition 1)."""

import pytest
import torch
from reference_fields import BatchedSineField, SineField, flip_signs, permute_hidden

from inrbridge import FunctionField, stack
from inrbridge.domains import Box
from inrbridge.models import GenerativeNet, Generator, build_model, model_class, model_names
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice, sobol
from inrbridge.transforms import AffineField

BOX = Box.centered(2)


def parameterizations(x):
    """One function in many guises; the tabulated one knows it at the points x alone."""
    field = SineField(width=12, channels=2, seed=3)
    batched = BatchedSineField(width=12, channels=2, seed=3)
    table = {tuple(point.tolist()): field(point).detach() for point in x}

    def look_up(coords):
        return torch.stack([table[tuple(point.tolist())] for point in coords.reshape(-1, 2)]).reshape(*coords.shape[:-1], 2)

    def closure(coords):
        for layer in field.layers[:-1]:
            coords = torch.sin(5.0 * (coords @ layer.weight.T + layer.bias))
        return coords @ field.layers[-1].weight.T + field.layers[-1].bias

    mirrored = AffineField(field, BOX, [[-1, 0], [0, -1]], [0, 0])
    return {
        "itself": field,
        "hidden units permuted": permute_hidden(field, torch.randperm(12, generator=torch.Generator().manual_seed(1))),
        "signs flipped": flip_signs(field, [0, 3, 7]),
        "closure": FunctionField(closure, BOX, 2),
        "tabulated": FunctionField(look_up, BOX, 2),
        "mirrored twice": AffineField(mirrored, BOX, [[-1, 0], [0, -1]], [0, 0]),
        "batched": batched,
    }


def pointwise(discretization):
    """The smallest net: pointwise features and their integral."""

    def net(values):
        weights = torch.linspace(-1, 1, 2 * 6, dtype=values.dtype).reshape(2, 6)
        return torch.relu(values @ weights).mean(1)

    return net


def architecture(name):
    def make(discretization):
        model = build_model(name, BOX, 2, 3, generator=torch.Generator().manual_seed(0)).double().eval()

        def net(values):
            out = model.compute(Sampled(discretization, values))
            return out.values.flatten(1) if isinstance(out, Sampled) else out  # a dense net gives values at every point

        return net

    make.__name__ = name
    return make


READERS = [
    name for name in model_names() if not issubclass(model_class(name), GenerativeNet | Generator)
]  # the others take no field
NETS = [pointwise, *map(architecture, READERS)]  # discretization -> net: values (b, n, 2) -> outputs


@pytest.mark.parametrize("make_net", NETS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("sampler", [lattice, sobol])
def test_equal_functions_give_equal_outputs(make_net, sampler):
    discretization = sampler(BOX, 256, dtype=torch.float64)
    guises = parameterizations(discretization.points)
    values = stack(guises.values())(discretization.points)
    with torch.no_grad():
        outputs = make_net(discretization)(values)
    for name, value, output in zip(guises, values, outputs, strict=True):
        torch.testing.assert_close(value, values[0], rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
        torch.testing.assert_close(output, outputs[0], rtol=1e-9, atol=1e-10)
    loss = outputs.square().sum(-1)
    torch.testing.assert_close(loss, loss[:1].expand_as(loss))


@pytest.mark.parametrize("make_net", NETS, ids=lambda make: make.__name__)
def test_another_function_gives_another_output(make_net):
    discretization = lattice(BOX, 256, dtype=torch.float64)
    field = SineField(width=12, channels=2, seed=3)
    untrue = permute_hidden(field, torch.arange(12).flip(0))
    with torch.no_grad():
        untrue.layers[1].weight.copy_(field.layers[1].weight)  # permuted before, but not after
        outputs = make_net(discretization)(stack([field, untrue])(discretization.points))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3 * outputs.abs().max()
