"""Files that are no state dict: vectors of numbers in HDF5, and lists of operations."""

import json
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from inrbridge_siren import SirenFormat
from inrbridge_siren.dialects import detect

from inrbridge import Probe, errors, identify, open_field

POINTS = 2 * torch.rand(9, 3, generator=torch.Generator().manual_seed(9)) - 1


def layers(sizes, seed=0):
    """Random pairs of W (out, in) and b."""
    rng = np.random.default_rng(seed)
    pairs = pairwise(sizes)
    return [(rng.normal(size=(b, a)).astype("f4") / a, rng.normal(size=b).astype("f4") / a) for a, b in pairs]


def slowly(parts, x, activate):
    x = x.numpy().astype("f8")
    for i, (weight, bias) in enumerate(parts):
        x = x @ weight.T + bias
        x = activate(x) if i < len(parts) - 1 else x
    return x


def values(field, x=POINTS):
    return field(x).detach().numpy()


@pytest.mark.parametrize(("width", "depth"), [(64, 4), (32, 2)])
def test_a_vector_of_inr2vec(width, depth, tmp_path):
    parts = layers([3, *[width] * depth, 1])
    with h5py.File(tmp_path / "7.h5", "w") as file:
        file["params"] = np.concatenate([value.ravel() for pair in parts for value in pair])
        file["pcd"], file["class_id"], file["uuid"] = np.zeros((5, 3), "f4"), np.int64(3), "some name"
    field = open_field(tmp_path / "7.h5")
    assert field.hidden == (width,) * depth and field.label == 3
    assert np.allclose(values(field), slowly(parts, POINTS, lambda x: np.sin(30 * x)), atol=2e-5)
    assert f"width = {width}, layers = {depth} (fit the number of parameters)" in field.assumed
    with pytest.raises(errors.CannotOpen, match="tell width and layers"):
        open_field(tmp_path / "7.h5", width=100)


def fit_a_nef(path, networks, config=None):
    names = [*(f"kernel_net_{i}.linear" for i in range(len(networks[0]) - 1)), "output_linear"]
    plan, rows = [], []
    for name, (weight, bias) in zip(names, networks[0], strict=True):
        plan += [(f"{name}.bias", bias.shape), (f"{name}.kernel", weight.T.shape)]
    for parts in networks:
        rows.append(np.concatenate([value.ravel() for weight, bias in parts for value in (bias, weight.T)]))
    with h5py.File(path, "w") as file:
        file["params"], file["labels"] = np.stack(rows), np.arange(len(rows)) + 5
        data = file.create_dataset("param_config", (1,), dtype=h5py.special_dtype(vlen=str))
        data[0] = json.dumps(plan) if config is None else config


def test_rows_of_fit_a_nef(tmp_path):
    networks = [layers([2, 6, 6, 3], seed=seed) for seed in range(3)]
    fit_a_nef(tmp_path / "nefs.hdf5", networks)
    points = POINTS[:, :2].contiguous()
    field = open_field(tmp_path / "nefs.hdf5")
    assert field.omega_0 == 8 and "index = 0 (the first of 3 networks: 0..2)" in field.assumed
    (tmp_path / "nef.json").write_text(json.dumps({"name": "SIREN", "params": {"omega_0": 12.5}}))
    assert SirenFormat().count(Probe(tmp_path / "nefs.hdf5")) == 3
    for i, field in enumerate(SirenFormat().open_all(tmp_path / "nefs.hdf5", {})):
        assert np.allclose(values(field, points), slowly(networks[i], points, lambda x: np.sin(12.5 * x)), atol=2e-5)
        assert field.label == i + 5 and field.axes == ("x", "y") and field.channel_ranges is None


@pytest.mark.parametrize(
    "config", ["", "{", "[1, 2]", "null", '[["a", [0]]]', '[["a", [4]]]', '[["kernel_net_0.linear.kernel", [9999]]]']
)
def test_a_plan_that_does_not_fit_is_refused(config, tmp_path):
    fit_a_nef(tmp_path / "nefs.hdf5", [layers([2, 4, 1])], config)
    with pytest.raises(errors.CannotOpen):
        open_field(tmp_path / "nefs.hdf5", format="siren")


def operations(parts, between, motion=None):
    content, number = {}, 0
    if motion is not None:
        content |= {"0000.spatial_transformation.R": motion[0], "0000.spatial_transformation.t": motion[1]}
        number = 1
    for i, (weight, bias) in enumerate(parts):
        content |= {f"{number:04d}.dense.A": weight.T, f"{number:04d}.dense.b": bias}
        if i < len(parts) - 1:
            content[f"{number + 1:04d}.{between[i % len(between)]}._"] = np.zeros(0)
        number += 2
    return content | {f"{number - 1:04d}.squeeze_last._": np.zeros(0)}


ACTIVATE = {"relu": lambda x: np.maximum(x, 0), "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), "sin": np.sin}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("name", ACTIVATE)
def test_lists_of_operations(name, moved, tmp_path):
    parts = layers([3, 5, 5, 1])
    rotation, shift = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0], np.array([0.1, 0.2, -0.3])
    np.savez(tmp_path / "net.npz", **operations(parts, [name], (rotation, shift) if moved else None))
    inverse = np.linalg.inv(rotation)
    x = torch.tensor(POINTS.numpy() @ inverse + inverse @ -shift) if moved else POINTS
    assert identify(tmp_path / "net.npz") == "siren"
    assert np.allclose(values(open_field(tmp_path / "net.npz")), slowly(parts, x, ACTIVATE[name]), atol=1e-5)


@pytest.mark.parametrize("between", [["relu", "elu"], ["pow2_frequency_encode"]])
def test_other_operations_are_refused(between, tmp_path):
    np.savez(tmp_path / "net.npz", **operations(layers([3, 5, 5, 1]), between))
    with pytest.raises(errors.CannotOpen, match="its operations are dense"):
        open_field(tmp_path / "net.npz")


def keras(path, parts, root=""):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"input_1", b"dense"])
        for i, (weight, bias) in enumerate(parts):
            name = f"dense_{i}" if i else "dense"
            group = file.create_group(f"{root}{name}/{name}")
            group["kernel:0"], group["bias:0"] = weight.T, bias


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_distance_networks_of_keras(root, tmp_path):
    parts = layers([3, *[8] * 11, 1])  # eleven layers: "dense_10" comes after "dense_9"
    keras(tmp_path / "net.h5", parts, root)
    field = open_field(tmp_path / "net.h5")
    assert (field.activation, field.final, field.channel_names) == ("relu", "tanh", ("sdf",))
    assert np.allclose(values(field), np.tanh(slowly(parts, POINTS, ACTIVATE["relu"])), atol=1e-5)


def test_other_networks_of_keras_are_declined(tmp_path):
    keras(tmp_path / "net.h5", layers([784, 8, 10]))
    assert detect(Probe(tmp_path / "net.h5").tensors) is None
