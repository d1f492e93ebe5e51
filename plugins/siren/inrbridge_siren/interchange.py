"""Readers of files that spell out their operations: neural-implicit-queries, and Keras networks of distances."""

from __future__ import annotations

import torch

from inrbridge import errors
from inrbridge_siren.dialects import keras_kernels
from inrbridge_siren.source import Parts, Source, check_chain

_OPERATIONS = {"relu": "relu", "elu": "elu", "sin": "sine"}


def read_niq(source: Source) -> Parts:
    """A list of operations "0000.dense.A": dense (x A + b), relu, elu, sin, and the shape's rigid motion before them."""
    names: dict[int, str] = {}
    for found in source.find(r"(\d{4})\.(\w+)\.\w+"):
        names[int(found[1])] = found[2]
    steps = [names[number] for number in sorted(names)]
    if steps[-1:] == ["squeeze_last"]:
        steps.pop()  # takes off an axis of one value, which a field keeps
    moved = steps[:1] == ["spatial_transformation"]
    dense, between = steps[moved::2], steps[moved + 1 :: 2]
    known = set(dense) == {"dense"} and len(dense) == len(between) + 1 and set(between) <= set(_OPERATIONS)
    if sorted(names) != list(range(len(names))) or not known or len(set(between)) != 1:
        raise errors.CannotOpen(
            f"its operations are {', '.join(steps[:6])}, ..., expected dense layers with one kind of {', '.join(_OPERATIONS)} "
            "between them."
        )
    layers = []
    for number in range(moved, moved + 2 * len(dense), 2):
        weight = source.tensor(f"{number:04d}.dense.A", None, None).mT.contiguous()
        key = f"{number:04d}.dense.b"
        layers.append((weight, source.tensor(key, len(weight)) if key in source.tensors else weight.new_zeros(len(weight))))
    check_chain(layers)
    if moved:  # input points move against the shape: x -> x R^-1 - R^-1 t
        weight, bias = layers[0]
        inverse = torch.linalg.inv(source.tensor("0000.spatial_transformation.R", *[weight.shape[1]] * 2).double())
        shift = inverse @ source.tensor("0000.spatial_transformation.t", weight.shape[1]).double()
        wide = weight.double()
        layers[0] = ((wide @ inverse.mT).to(weight.dtype), (bias.double() - wide @ shift).to(weight.dtype))
    activation = _OPERATIONS[between[0]]
    source.assume.note("the value is a distance or an occupancy, negative inside")
    return Parts(layers, activation=activation, omegas=[1.0] * len(between) if activation == "sine" else None)


def read_keras(source: Source) -> Parts:
    """Weights that Keras saved in HDF5: "dense_i.dense_i.kernel:0" (in, out) and "bias:0"."""
    layers = []
    for name in keras_kernels(source.shapes):
        weight = source.tensor(name, None, None).mT.contiguous()
        layers.append((weight, source.tensor(f"{name.removesuffix('kernel:0')}bias:0", len(weight))))
    return Parts(layers)
