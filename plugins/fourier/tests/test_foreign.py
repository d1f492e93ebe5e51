"""Checkpoints of other code bases: their layouts by files made here and slow twins, options, and what is refused."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from inrbridge_fourier import FourierFormat
from inrbridge_fourier.dialects import DIALECTS, detect

from inrbridge import Box, Probe, errors, identify, open_field


def rand(*shape, seed=5):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sequential(m=8, dim=2, width=6, channels=1):
    """An encoding and two linear layers with an activation between them, as nn.Sequential names them."""
    sizes = {"1": (width, 2 * m), "3": (channels, width)}
    state = {"0.b": rand(m, dim)}
    for name, shape in sizes.items():
        state |= {f"{name}.weight": rand(*shape) - 0.5, f"{name}.bias": rand(shape[0]) - 0.5}
    return state


def test_a_sequence_with_relu(tmp_path):
    state = sequential()
    torch.save({"model": state}, tmp_path / "net.pt")
    field, coords = FourierFormat().open(tmp_path / "net.pt"), rand(5, 2)
    phase = 2 * math.pi * coords @ state["0.b"].T
    x = torch.cat([phase.cos(), phase.sin()], -1)
    x = torch.relu(x @ state["1.weight"].T + state["1.bias"])
    assert torch.allclose(field(coords), x @ state["3.weight"].T + state["3.bias"], atol=1e-5)
    assert field.channel_names == ("gray",) and field.architecture["sigma"] is None
    FourierFormat().save(field, tmp_path / "native.safetensors")
    again = FourierFormat().open(tmp_path / "native.safetensors")
    assert torch.equal(again(coords), field(coords)) and again.architecture == field.architecture


def test_equal_architectures_of_files_agree_so_that_they_stack(tmp_path):
    for seed in (1, 2):
        state = sequential()
        state["0.b"] = state["0.b"] * seed
        torch.save(state, tmp_path / f"{seed}.pt")
    assert FourierFormat().open(tmp_path / "1.pt").architecture == FourierFormat().open(tmp_path / "2.pt").architecture


@pytest.mark.parametrize("spoil", ["no frequencies", "width", "bias", "extra"])
def test_what_fits_no_dialect_is_declined(spoil, tmp_path):
    state = sequential()
    assert detect({name: tuple(value.shape) for name, value in state.items()}).name == "sequential"
    if spoil == "no frequencies":
        del state["0.b"]
    elif spoil == "width":
        state["0.b"] = rand(9, 2)
    elif spoil == "bias":
        del state["1.bias"]
    else:
        state["running_mean"] = rand(3)
    assert detect({name: tuple(value.shape) for name, value in state.items()}) is None
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(errors.CannotOpen, match="frequencies"):
        FourierFormat().open(tmp_path / "net.pt")


def test_wrong_options_are_told(tmp_path):
    torch.save(sequential(), tmp_path / "net.pt")
    with pytest.raises(errors.UnknownName, match="sequential"):
        FourierFormat().open(tmp_path / "net.pt", dialect="sequentail")
    with pytest.raises(errors.CannotOpen, match="dinet"):
        FourierFormat().open(tmp_path / "net.pt", dialect="dinet")
    with pytest.raises(errors.ShapeMismatch, match="2 numbers"):
        FourierFormat().open(tmp_path / "net.pt", high=[1, 1, 1])
    assert FourierFormat().open(tmp_path / "net.pt", low=-1).domain == Box((-1, -1), (1, 1))


def test_every_dialect_names_its_source():
    import importlib

    for dialect in DIALECTS.values():
        module, function = dialect.reader.split(":")
        assert dialect.source and callable(getattr(importlib.import_module(f"inrbridge_fourier.{module}"), function))


def mlp(sizes, names, seed=0):
    """Random layers of these sizes under these names."""
    state = {}
    for i, ((fan_in, fan_out), name) in enumerate(zip(pairwise(sizes), names, strict=True)):
        state[f"{name}.weight"] = normal(fan_out, fan_in, seed=seed + i) / math.sqrt(fan_in)
        state[f"{name}.bias"] = normal(fan_out, seed=seed + 50 + i) / 4
    return state


def slowly(state, names, x, activate=torch.relu):
    for i, name in enumerate(names):
        x = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        x = activate(x) if i < len(names) - 1 else x
    return x


def waves(x, frequencies, order="cos-sin"):
    phase = 2 * math.pi * x @ frequencies.T
    pair = [phase.cos(), phase.sin()]
    return torch.cat(pair if order == "cos-sin" else pair[::-1], 1)


SHARED = ["network.layers.0", "network.layers.1.layers.0", "network.layers.2.layers.0", "network.layers.3"]


def test_the_image_example_of_jmclong(tmp_path):
    """Its first layer has no activation; the others are one module, saved several times."""
    state, b, x = mlp([10, 6, 6, 6, 3], SHARED), normal(5, 2), rand(8, 2)
    for name in ("weight", "bias"):
        state[f"network.layers.2.layers.0.{name}"] = state[f"network.layers.1.layers.0.{name}"]
    torch.save({"encoding.b": b, **state}, tmp_path / "net.pt")
    h = waves(x, b) @ state["network.layers.0.weight"].T + state["network.layers.0.bias"]
    expected = torch.sigmoid(slowly(state, SHARED[1:], h))
    field = open_field(tmp_path / "net.pt")
    assert torch.allclose(field(x), expected, atol=1e-5) and field.hidden == (6, 6)


def test_a_lost_encoding_is_told_and_a_positional_one_can_be_named(tmp_path):
    m, sigma, x = 3, 7.0, rand(8, 2)
    state = mlp([2 * 2 * m, 6, 6, 6, 3], SHARED)
    torch.save(state, tmp_path / "net.pt")
    assert identify(tmp_path / "net.pt") == "fourier"
    with pytest.raises(errors.CannotOpen, match=r"frequencies B.*were not saved.*positional"):
        open_field(tmp_path / "net.pt")
    columns = []
    for j in range(2):
        phases = [2 * math.pi * sigma ** (k / m) * x[:, j] for k in range(m)]
        columns += [phase.cos() for phase in phases] + [phase.sin() for phase in phases]
    h = torch.stack(columns, 1) @ state["network.layers.0.weight"].T + state["network.layers.0.bias"]
    field = open_field(tmp_path / "net.pt", encoding="positional", sigma=sigma)
    assert torch.allclose(field(x), torch.sigmoid(slowly(state, SHARED[1:], h)), atol=1e-5)
    assert "dim = 2 (default of dialect jmclong)" in field.assumed
    for options in ({"dim": 5}, {"dim": 0}, {"sigma": -1.0}):
        with pytest.raises(errors.CannotOpen, match="first layer takes 12 inputs"):
            open_field(tmp_path / "net.pt", encoding="positional", **options)
    plain = mlp([2 * 2 * m, 6, 3], ["0", "2"])
    torch.save(plain, tmp_path / "plain.pt")
    field = open_field(tmp_path / "plain.pt", format="fourier", encoding="positional", sigma=sigma)
    assert torch.allclose(field(x), slowly(plain, ["0", "2"], torch.stack(columns, 1)), atol=1e-5)


def test_an_rff_net_of_dinet(tmp_path):
    generator, x = torch.Generator().manual_seed(0), 2 * rand(8, 2) - 1
    state, sizes = {"_B": 3 * normal(2, 5)}, {0: (6, 10), 3: (6, 6), 6: (6, 6), 9: (3, 6)}
    for number, shape in sizes.items():
        state[f"layers.{number}.weight"] = torch.randn(*shape, 1, generator=generator) / 3
        if number < 9:
            for kind in ("weight", "bias", "running_mean", "running_var"):
                state[f"layers.{number + 2}.{kind}"] = torch.rand(6, generator=generator) + 0.1
            state[f"layers.{number + 2}.num_batches_tracked"] = torch.tensor(7)
    torch.save(state, tmp_path / "net.pt")
    v = (x + 1) / 2 @ state["_B"]
    h = torch.cat([v.sin(), v.cos()], 1)
    for number in (0, 3, 6):
        h = torch.relu(h @ state[f"layers.{number}.weight"][:, :, 0].T)
        norm = torch.nn.functional.batch_norm
        h = norm(h, *(state[f"layers.{number + 2}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))
    field = open_field(tmp_path / "net.pt")
    assert torch.allclose(field(x), torch.sigmoid(h @ state["layers.9.weight"][:, :, 0].T), atol=1e-5)
    with pytest.raises(errors.ConfigError, match="fixes"):
        open_field(tmp_path / "net.pt", low=0)
    del state["layers.5.running_var"]
    assert detect({name: tuple(value.shape) for name, value in state.items()}) is None


@pytest.mark.parametrize("skip", [None, 1, 3])
def test_a_phase_field(skip, tmp_path):
    """IGR's layers: softplus of sharpness 100, and (h | x) / sqrt 2 where the coordinates enter again."""
    names, b, x = [f"lin{i}" for i in range(5)], normal(6, 3), rand(8, 3) - 0.5
    state = mlp([12, 9, 9, 9, 9, 1], names)
    if skip is not None:
        state[f"lin{skip - 1}.weight"], state[f"lin{skip - 1}.bias"] = (
            state[f"lin{skip - 1}.weight"][:6],
            state[f"lin{skip - 1}.bias"][:6],
        )
    torch.save({"FFL.b": b, **state}, tmp_path / "net.pt")
    h = waves(x, b)
    for i, name in enumerate(names):
        h = torch.cat([h, x], 1) / math.sqrt(2) if i == skip else h
        h = h @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        h = torch.nn.functional.softplus(h, 100) if i < 4 else h
    field = open_field(tmp_path / "net.pt")
    assert torch.allclose(field(x), h, atol=1e-5)
    assert field.skips == (() if skip is None else (skip,)) and field.channel_names == ("phase",)
    assert field.domain == Box([-0.5] * 3, [0.5] * 3) and "beta = 100 (default of dialect kees)" in field.assumed


@pytest.mark.parametrize(("count", "raw", "octaves"), [(1, True, None), (1, False, None), (3, True, None), (3, True, [1, 4])])
def test_encodings_of_nerfstudio(count, raw, octaves, tmp_path):
    basis, x = normal(3, 4), rand(8, 3)
    names = ["mlp.layers.0", "mlp.layers.1", "mlp.layers.2"]
    state = mlp([2 * 4 * count + 3 * raw, 6, 6, 2], names)
    torch.save({"encoding.b_matrix": basis, **state}, tmp_path / "net.pt")
    low, high = octaves or (0, count - 1)
    scaled = ((2 * math.pi * x) @ basis)[..., None] * 2 ** torch.linspace(low, high, count)
    scaled = scaled.reshape(len(x), -1)
    features = torch.sin(torch.cat([scaled, scaled + math.pi / 2], 1))
    features = torch.cat([features, x], 1) if raw else features
    field = open_field(tmp_path / "net.pt", **({"octaves": octaves} if octaves else {}))
    assert torch.allclose(field(x), slowly(state, names, features), atol=2e-4)
    assert field.raw == raw
    with pytest.raises(errors.ConfigError if count > 1 else errors.InrBridgeError, match="octaves" if count > 1 else "raw"):
        open_field(tmp_path / "net.pt", **({"octaves": [1]} if count > 1 else {"raw": "middle", "order": "raw"}))


STAX = [("pickle", "B"), ("pickle", "pair"), ("npy", "pair"), ("torch", "bvals")]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("container", "place"), STAX)
def test_lists_of_stax(container, place, wide, tmp_path):
    """W is (in, out), activations are empty tuples, the features [sin, cos], the coordinates (x, y)."""
    state, b, x = mlp([10, 6, 6, 3], ["0", "1", "2"]), normal(5, 2), rand(8, 2)
    layers = []
    for i in range(3):
        layers += [(state[f"{i}.weight"].T.numpy(), state[f"{i}.bias"].numpy()), ()][: 2 if i < 2 else 1]
    frequencies = b.T.contiguous().numpy() if wide else b.numpy()
    content = [layers, frequencies] if place == "pair" else {"params": layers, place: frequencies}
    path = tmp_path / "net.npy"
    if container == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif container == "npy":
        array = np.empty(2, dtype=object)
        array[0], array[1] = content
        np.save(path, array, allow_pickle=True)
    else:
        pairs = [tuple(torch.tensor(value) for value in pair) for pair in layers]
        torch.save({"params": pairs, place: torch.tensor(frequencies)}, path)
    expected = torch.sigmoid(slowly(state, ["0", "1", "2"], waves(x, b, "sin-cos")))
    assert identify(path) == "fourier"
    assert torch.allclose(open_field(path)(x), expected, atol=1e-5)
    assert torch.allclose(open_field(path, convention="image")(x.flip(1)), expected, atol=1e-5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("raw", [None, "first", "last"])
@pytest.mark.parametrize("order", [None, "cos-sin"])
def test_frequencies_called_b_in_pytorch(order, raw, wide, tmp_path):
    b, x, names = normal(5, 2), rand(8, 2), ["net.0", "net.2", "output"]
    state = mlp([10 + 2 * bool(raw), 6, 6, 1], names)
    torch.save({"B_gauss": b.T.contiguous() if wide else b, **state}, tmp_path / "net.pt")
    features = waves(x, b, order or "sin-cos")
    if raw:
        features = torch.cat([x, features] if raw == "first" else [features, x], 1)
    options = {name: value for name, value in (("order", order), ("raw", raw)) if value}
    field = open_field(tmp_path / "net.pt", **options)
    assert torch.allclose(field(x), slowly(state, names, features), atol=1e-4)
    if raw:
        swapped = FourierFormat().open(tmp_path / "net.pt", dialect="gaussian", **options)
        assert torch.equal(swapped(x), field(x))


def filters(count, dim, channels, width=6, multiscale=True, turn=2 * math.pi):
    state = {}
    for i in range(count):
        state[f"filters.{i}.linear.weight"] = turn * (6 * rand(width, dim, seed=i) - 3).round()
        state[f"filters.{i}.linear.bias"] = normal(width, seed=20 + i)
        if i < count - 1:
            state[f"linear.{i}.weight"], state[f"linear.{i}.bias"] = (
                normal(width, width, seed=40 + i) / 2,
                normal(width, seed=60 + i) / 4,
            )
        name = f"output_linear.{i}" if multiscale else "output_linear"
        state[f"{name}.weight"], state[f"{name}.bias"] = normal(channels, width, seed=80 + i), normal(channels, seed=100 + i)
    return state


def filtered_slowly(state, x, use, readout):
    f = [torch.sin(x @ state[f"filters.{i}.linear.weight"].T + state[f"filters.{i}.linear.bias"]) for i in use]
    z = f[0]
    for i in range(1, len(use)):
        z = f[i] * (z @ state[f"linear.{i - 1}.weight"].T + state[f"linear.{i - 1}.bias"])
    return z @ state[f"{readout}.weight"].T + state[f"{readout}.bias"]


@pytest.mark.parametrize(("count", "dim", "channels", "use"), [
    (9, 3, 1, [2, 2, 2, 4, 4, 6, 6, 8, 8]), (5, 3, 1, [0, 0, 4, 4, 4]), (5, 2, 3, [0, 1, 2, 3, 4]), (9, 3, 4, list(range(9))),
])  # fmt: skip
def test_multiplicative_filters(count, dim, channels, use, tmp_path):
    """BACON's shapes use some of the stored filters several times; its pictures and radiance fields do not."""
    state, x = filters(count, dim, channels), rand(8, dim) - 0.5
    torch.save(state, tmp_path / "net.pt")
    field = open_field(tmp_path / "net.pt")
    assert torch.allclose(field(x), filtered_slowly(state, x, use, f"output_linear.{count - 1}"), rtol=1e-4, atol=1e-4)
    assert field.domain == Box([-0.5] * dim, [0.5] * dim)
    level = count // 2
    coarse = open_field(tmp_path / "net.pt", level=level)
    assert len(coarse.layers) == level
    assert torch.allclose(coarse(x), filtered_slowly(state, x, use[: level + 1], f"output_linear.{level}"), rtol=1e-4, atol=1e-4)
    other = open_field(tmp_path / "net.pt", reuse=use == list(range(count)))
    assert not torch.allclose(other(x), field(x), atol=1e-2)
    with pytest.raises(errors.ConfigError, match="expected one of 1, 2"):
        open_field(tmp_path / "net.pt", level=0)
    if dim == 2:
        image = open_field(tmp_path / "net.pt", convention="image")
        assert torch.allclose(image(x), (field(x) + 1) / 2, atol=1e-5)


def test_the_period_of_the_frequencies_is_the_domain(tmp_path):
    for turn, half in [(2 * math.pi, 0.5), (math.pi / 4, 4.0), (1.0, 0.5)]:
        torch.save(filters(3, 2, 3, multiscale=False, turn=turn), tmp_path / "net.pt")
        field = open_field(tmp_path / "net.pt")
        assert field.domain == Box([-half] * 2, [half] * 2)
        assert any("one period" in text for text in field.assumed) == (turn != 1.0)


def test_one_readout_and_too_many_filters(tmp_path):
    state, x = filters(4, 2, 3, multiscale=False), rand(8, 2) - 0.5
    torch.save({"state_dict": state}, tmp_path / "net.pt")
    found = open_field(tmp_path / "net.pt")(x)
    assert torch.allclose(found, filtered_slowly(state, x, [0, 1, 2, 3], "output_linear"), rtol=1e-4, atol=1e-4)
    torch.save(filters(10, 3, 1), tmp_path / "net.pt")
    with pytest.raises(errors.CannotOpen, match="10 filters"):
        open_field(tmp_path / "net.pt")


@pytest.mark.parametrize("spoil", ["filters.1.linear.bias", "linear.0.weight", "output_linear.2.bias", "filters.0.linear.weight"])
def test_incomplete_filters_are_declined(spoil):
    shapes = {name: tuple(value.shape) for name, value in filters(3, 2, 3).items()}
    assert detect(shapes).name == "bacon"
    for shape in ((4, 4, 4), (7,), (0, 6)):
        assert detect(shapes | {spoil: shape}) is None
    del shapes[spoil]
    assert detect(shapes) is None
    assert detect({name: shape for name, shape in shapes.items() if "filters" not in name}) is None


def test_values_far_outside_hint_at_a_sigmoid(tmp_path):
    state = sequential(channels=3)
    state["3.weight"] *= 50
    torch.save(state, tmp_path / "net.pt")
    assert any("final=sigmoid" in text for text in open_field(tmp_path / "net.pt").assumed)
    assert not any("final=sigmoid" in text for text in open_field(tmp_path / "net.pt", final="sigmoid").assumed)


def test_networks_of_other_plugins_are_declined():
    names = ["seq.1", "seq.2", "seq.3"]
    shapes = {name: tuple(value.shape) for name, value in mlp([16, 4, 4, 1], names).items()} | {"seq.0.b": (8, 2)}
    assert detect(shapes) is None
    assert detect({f"_model.field_fine.{k}": v for k, v in shapes.items()}) is None
    assert detect({"0": (63, 256), "1": (256,)}) is None


def test_damaged_numbers_are_a_field_or_an_error(tmp_path):
    state = sequential()
    state["1.weight"][0, 0] = math.nan
    torch.save(state, tmp_path / "net.pt")
    assert not bool(open_field(tmp_path / "net.pt")(rand(4, 2)).isfinite().all())
    torch.save({name: value.long() for name, value in state.items()}, tmp_path / "whole.pt")
    with pytest.raises(errors.CannotOpen, match="floating-point"):
        open_field(tmp_path / "whole.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_half_and_double_precision(dtype, tmp_path):
    torch.save({name: value.to(dtype) for name, value in sequential().items()}, tmp_path / "net.pt")
    field = open_field(tmp_path / "net.pt")
    assert field.layers[0].weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert Probe(tmp_path / "net.pt").tensors["0.b"] == (8, 2)


WRONG = [({"final": "relu"}, errors.UnknownName, "sigmoid"), ({"activation": "swish"}, errors.UnknownName, "softplus"),
         ({"order": "sin"}, errors.UnknownName, "sin-cos"), ({"encoding": "hash"}, errors.UnknownName, "positional"),
         ({"low": 1, "high": 0}, errors.ConfigError, "low < high"), ({"low": "left"}, errors.ConfigError, "expected numbers"),
         ({"convention": "picture"}, errors.UnknownName, "image"),
         ({"beta": "sharp", "activation": "softplus"}, errors.ConfigError, "beta")]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "text"), WRONG, ids=str)
def test_options_that_do_not_exist_are_told(options, error, text, tmp_path):
    torch.save(sequential(), tmp_path / "net.pt")
    with pytest.raises(error, match=text):
        FourierFormat().open(tmp_path / "net.pt", **options)
