"""Q24 [Wang & Golland 2023, section 4.3]: work and memory grow linearly with points and fields; no loop over points in Python.

Counted, not timed: the elements that torch operations write, their number, and the bytes kept for the backward pass.
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inrbridge.domains import Box
from inrbridge.models import build_model
from inrbridge.nn import Conv, MLPConv, Sampled
from inrbridge.ops.reference import local_dense
from inrbridge.sampling import lattice, sobol
from inrbridge.stencils import Bins, Quadrature, Reconstruct, build_stencil, kernel_nodes
from inrbridge.stencils.bases import BSpline

BOX = Box.centered(2)


class Count(TorchDispatchMode):
    """Count the operations and the elements they return."""

    def __init__(self):
        super().__init__()
        self.operations, self.elements = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.operations += 1
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.elements += value.numel()
        return out


def cost(layer, sampled):
    """Operations, elements written and bytes kept of one forward and backward pass; the stencils exist already."""
    layer(sampled).values.sum().backward()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Count() as count, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(sampled).values.sum().backward()
    return count.operations, count.elements, sum(kept.values())


def slope(sizes, values):
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])


def layer_at(kind, n, generator):
    """A layer whose support holds the same number of points at every n."""
    h = 2 / math.sqrt(n)
    if kind == "reconstruct":
        return Conv(8, 8, spacing=h, generator=generator)
    return MLPConv(8, 8, half_width=1.5 * h, bins=16, generator=generator)


@pytest.mark.parametrize("kind", ["reconstruct", "bins"])
@pytest.mark.parametrize("sampler", [lattice, sobol])
def test_work_and_memory_are_linear_in_the_points(kind, sampler, generator):
    sizes = (2**8, 2**10, 2**12)
    costs = []
    for n in sizes:
        source = sampler(BOX, n, generator)
        values = torch.randn(2, n, 8, generator=generator, requires_grad=True)
        costs.append(cost(layer_at(kind, n, generator), Sampled(source, values)))
    operations, elements, kept = zip(*costs, strict=True)
    assert slope(sizes, elements) <= 1.15 and slope(sizes, kept) <= 1.15, costs
    assert operations[-1] < sizes[-1] / 2, "as many operations as points: a loop over points"


def test_work_is_linear_in_the_fields(generator):
    source, sizes = lattice(BOX, 1024, generator), (4, 16, 64)
    layer = layer_at("reconstruct", 1024, generator)
    elements = [cost(layer, Sampled(source, torch.zeros(b, 1024, 8, requires_grad=True)))[1] for b in sizes]
    assert slope(sizes, elements) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("n", [2**8, 2**12])
def test_stencils_hold_a_bounded_number_of_neighbours(n, generator):
    h = 2 / math.sqrt(n)
    spacing = (h, h)
    source = sobol(BOX, n, generator)
    for rule in (Reconstruct(kernel_nodes((3, 3), spacing), spacing), Quadrature(BSpline((3, 3), spacing), spacing)):
        assert build_stencil(rule, source).matrix.columns.numel() <= 9 * 20 * n
    pairs = build_stencil(Bins(((0.0, 0.0),), (1.5 * h, 1.5 * h)), source).pairs.weight.numel()
    assert pairs <= 12 * n


def test_a_net_keeps_nothing_of_the_size_of_its_neighbourhoods(generator):
    """What the backward pass keeps is of the size of the activations, not of points x neighbours x channels."""
    n, b, width = 1024, 32, 32
    net = build_model("convnet", BOX, 1, 10, widths=(width, width), norm="none", generator=generator)
    source = lattice(BOX, n, generator)
    values = torch.randn(b, n, 1, generator=generator)
    net(Sampled(source, values)).sum().backward()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(Sampled(source, values)).sum().backward()
    activation = 4 * b * n * width
    assert sum(kept.values()) <= 5 * activation


def test_negative_control_all_pairs_grow_with_the_square(generator):
    """The definition written out, dense: what the stencils avoid."""
    sizes, elements = (2**5, 2**7), []
    for n in sizes:
        source = sobol(BOX, n, generator)
        layer = layer_at("reconstruct", n, generator)
        dense, kernel = build_stencil(layer.rule, source).dense().float(), layer.weight.flatten(2).permute(2, 1, 0)
        with Count() as count:
            local_dense(torch.randn(2, n, 8, generator=generator), dense, kernel)
            (dense * 1.0).sum()
        elements.append(count.elements)
    assert slope(sizes, elements) > 1.5, elements


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("reconstruct", 2**15), ("bins", 2**16)])
def test_work_and_memory_stay_linear_up_to_many_points(kind, most, generator):
    sizes, costs = (2**12, most), []
    for n in sizes:
        values = torch.randn(1, n, 8, generator=generator, requires_grad=True)
        costs.append(cost(layer_at(kind, n, generator), Sampled(lattice(BOX, n, generator), values)))
    operations, elements, kept = zip(*costs, strict=True)
    assert slope(sizes, elements) <= 1.15 and slope(sizes, kept) <= 1.15, costs
    assert operations[1] < sizes[1] / 64
