"""Checkpoints of other code bases: layouts, encodings, frequencies and options, by files made here and by slow twins."""

import math

import pytest
import torch
from inrbridge_siren import SirenFormat
from inrbridge_siren.dialects import DIALECTS, detect

from inrbridge import Box, Probe, errors, open_field


def network(names, dim=2, width=8, channels=3):
    """Random weights under the names of the layers given."""
    generator = torch.Generator().manual_seed(0)
    sizes = [dim, *[width] * (len(names) - 1), channels]
    state = {}
    for name, fan_in, fan_out in zip(names, sizes, sizes[1:], strict=False):
        state[f"{name}.weight"] = torch.randn(fan_out, fan_in, generator=generator) / 30
        state[f"{name}.bias"] = torch.randn(fan_out, generator=generator) / 30
    return state


LAYOUTS = {
    "vsitzmann": ["net.net.0.0", "net.net.1.0", "net.net.2.0"],
    "explore": ["net.0.linear", "net.1.linear", "net.2"],
    "coin": ["net.0.linear", "net.1.linear", "last_layer.linear"],
    "lucidrains": ["layers.0", "layers.1", "last_layer"],
    "dalmia": ["network.0", "network.2", "network.4"],
    "dws": ["seq.0", "seq.1", "seq.2"],
    "inr2vec": ["layers.0.0", "layers.1.0", "layers.2"],
    "plain": ["net.0", "net.1", "net.2"],
}


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "module."])
@pytest.mark.parametrize("dialect", LAYOUTS)
def test_layouts_under_their_wrappers(dialect, wrapper, tmp_path):
    state = network(LAYOUTS[dialect])
    content = {wrapper: state} if wrapper else state
    if wrapper == "module.":
        content = {wrapper + name: value for name, value in state.items()}
    torch.save(content, tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt")
    assert field.assumed[0].startswith(f"dialect = {dialect} ")
    spoken, coords = DIALECTS[dialect], torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    x = coords
    for index, name in enumerate(LAYOUTS[dialect]):
        x = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        if index < 2:
            x = torch.sin((spoken.omega_0 if index == 0 else spoken.hidden_omega) * x)
    assert torch.allclose(field(coords), x + spoken.offset, atol=1e-6)


def test_an_outermost_sine_is_seen(tmp_path):
    torch.save(network(["net.0.linear", "net.1.linear", "net.2.linear"]), tmp_path / "net.pt")
    assert SirenFormat().open(tmp_path / "net.pt").final == "sine"


def test_options_replace_what_is_assumed(tmp_path):
    torch.save(network(LAYOUTS["plain"], dim=3, channels=1), tmp_path / "net.pt")
    field = SirenFormat().open(
        tmp_path / "net.pt",
        dialect="plain",
        omega_0=10,
        hidden_omega=1,
        activation="sine",
        final="sigmoid",
        low=0,
        high=[1, 2, 3],
    )
    assert (field.omega_0, field.hidden_omega, field.final) == (10, 1, "sigmoid")
    assert field.domain == Box((0, 0, 0), (1, 2, 3)) and field.channel_names == ("sdf",)
    assert not any("default" in text for text in field.assumed)


def test_a_frequency_that_the_weights_contradict_is_told(tmp_path):
    state = network(LAYOUTS["explore"])  # hidden weights of deviation 1/30: as for omega 30
    torch.save(state, tmp_path / "thirty.pt")
    assert not any("rather looks like" in text for text in SirenFormat().open(tmp_path / "thirty.pt").assumed)
    state["net.1.linear.weight"] *= 20
    torch.save(state, tmp_path / "one.pt")
    assert any("hidden_omega = 1" in text for text in SirenFormat().open(tmp_path / "one.pt").assumed)


def test_half_and_double_precision(tmp_path):
    for dtype, expected in [(torch.float16, torch.float32), (torch.float64, torch.float64)]:
        torch.save({name: value.to(dtype) for name, value in network(LAYOUTS["coin"]).items()}, tmp_path / "net.pt")
        assert SirenFormat().open(tmp_path / "net.pt").layers[0].weight.dtype == expected


@pytest.mark.parametrize("spoil", ["shape", "missing bias", "extra", "numbers start at 1"])
def test_what_fits_no_dialect_is_declined(spoil):
    shapes = {name: tuple(value.shape) for name, value in network(LAYOUTS["plain"]).items()}
    assert detect(shapes)
    if spoil == "shape":
        shapes["net.1.weight"] = (8, 9)
    elif spoil == "missing bias":
        del shapes["net.1.bias"]
    elif spoil == "extra":
        shapes["modulator.0.weight"] = (8, 8)
    else:
        shapes = {name.replace("net.0", "net.7"): shape for name, shape in shapes.items()}
    assert detect(shapes) is None


def test_a_saved_foreign_field_is_the_same_field(tmp_path):
    torch.save(network(LAYOUTS["dws"], channels=1), tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt")
    SirenFormat().save(field, tmp_path / "native.safetensors")
    again, coords = SirenFormat().open(tmp_path / "native.safetensors"), torch.zeros(1, 2)
    assert torch.equal(again(coords), field(coords)) and again.axes == ("x", "y") and again.domain == field.domain


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dialect": "cion"}, errors.UnknownName, "coin"),
        ({"dialect": "coin"}, errors.CannotOpen, "do not fit dialect"),
        ({"convention": "picture"}, errors.UnknownName, "image"),
        ({"convention": "image", "final": "sine"}, errors.CannotOpen, "hides the range"),
        ({"index": 0}, errors.CannotOpen, "one network"),
        ({"high": [1, 2, 3]}, errors.ShapeMismatch, "2 numbers"),
        ({"high": -3}, errors.ConfigError, "low < high"),
        ({"low": "left"}, errors.ConfigError, "expected numbers"),
        ({"omega_0": "fast"}, errors.ConfigError, "omega_0"),
        ({"activation": "swish"}, errors.UnknownName, "softplus"),
        ({"final": "relu"}, errors.UnknownName, "clamp"),
        ({"encoding": "hash"}, errors.UnknownName, "positional"),
        ({"encoding": "nerf", "dim": 5}, errors.CannotOpen, "expected more"),
        ({"size": [3, 4]}, errors.ConfigError, "COIN"),
    ],
)
def test_wrong_options_are_told(options, error, text, tmp_path):
    torch.save(network(LAYOUTS["explore"]), tmp_path / "net.pt")
    with pytest.raises(error, match=text):
        SirenFormat().open(tmp_path / "net.pt", **options)


def test_the_image_convention_needs_an_image(tmp_path):
    torch.save(network(LAYOUTS["vsitzmann"], dim=3, channels=1), tmp_path / "net.pt")
    with pytest.raises(errors.CannotOpen, match="expected an image"):
        SirenFormat().open(tmp_path / "net.pt", convention="image")


def test_coin_knows_the_corner_of_a_picture_that_is_not_square(tmp_path):
    torch.save(network(LAYOUTS["coin"]), tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt", size=[128, 192], final="clamp")
    assert field.domain == Box((-1, -1), (1, 2 * 191 / 127 - 1))
    values = field(2 * torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) - 1)
    free = SirenFormat().open(tmp_path / "net.pt")(2 * torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) - 1)
    assert torch.equal(values, free.clamp(0, 1)) and float(free.detach().min()) < 0
    for size in ([1, 5], ["a", "b"], 7):
        with pytest.raises(errors.ConfigError, match="rows and columns"):
            SirenFormat().open(tmp_path / "net.pt", size=size)


def test_the_optimizer_beside_a_network_is_passed_over(tmp_path):
    torch.save(
        {"model_state_dict": network(LAYOUTS["explore"]), "optimizer_state_dict": {"exp_avg": torch.zeros(3)}},
        tmp_path / "net.pt",
    )
    assert SirenFormat().open(tmp_path / "net.pt").hidden == (8, 8)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "selu", "softplus", "elu"])
def test_other_activations_of_vsitzmann(activation, tmp_path):
    state = network(LAYOUTS["vsitzmann"])
    torch.save(state, tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt", activation=activation)
    x = coords = points(2)
    for index, name in enumerate(LAYOUTS["vsitzmann"]):
        x = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        x = getattr(torch.nn.functional, activation)(x) if index < 2 else x
    assert torch.allclose(field(coords), x, atol=1e-6)
    assert not any("omega" in text for text in field.assumed)


def points(dim, n=7):
    return 2 * torch.rand(n, dim, generator=torch.Generator().manual_seed(3)) - 1


def sines(state, names, x, omega=30.0):
    """Sine layers on features x and a linear readout: the slow twin."""
    for index, name in enumerate(names):
        x = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        x = torch.sin(omega * x) if index < len(names) - 1 else x
    return x


@pytest.mark.parametrize(("dim", "octaves", "told"), [(3, 10, {}), (2, 7, {}), (1, 9, {"dim": 1}), (2, 2, {"encoding": "nerf"})])
def test_octaves_of_vsitzmann(dim, octaves, told, tmp_path):
    state = network(LAYOUTS["vsitzmann"], dim=dim + 2 * dim * octaves)
    state["net.net.0.0.weight"] *= 9  # no sine layer starts so wide
    torch.save(state, tmp_path / "net.pt")
    coords = points(dim)
    columns = [coords]
    for i in range(octaves):
        for j in range(dim):
            columns += [torch.sin(2**i * math.pi * coords[:, j : j + 1]), torch.cos(2**i * math.pi * coords[:, j : j + 1])]
    assert SirenFormat().open(tmp_path / "net.pt", **told).activation == "relu"
    field = SirenFormat().open(tmp_path / "net.pt", activation="sine", **told)
    assert field.domain.dim == dim
    assert torch.allclose(field(coords), sines(state, LAYOUTS["vsitzmann"], torch.cat(columns, 1)), atol=2e-5)
    if dim > 1 and not told:
        assert any(text.startswith("encoding = nerf") for text in field.assumed)


def test_radial_functions_of_vsitzmann(tmp_path):
    state = network(LAYOUTS["vsitzmann"], dim=20)
    generator = torch.Generator().manual_seed(1)
    state["rbf_layer.centres"] = torch.rand(20, 2, generator=generator)
    state["rbf_layer.sigmas"] = 3 + torch.rand(20, generator=generator)
    state["rbf_layer.freq"] = torch.ones(1, 20)
    torch.save(state, tmp_path / "net.pt")
    coords = points(2)
    squares = ((coords[:, None] - state["rbf_layer.centres"]) ** 2).sum(-1)
    features = torch.exp(-((state["rbf_layer.sigmas"] * squares) ** 2))
    assert SirenFormat().open(tmp_path / "net.pt").activation == "relu"
    field = SirenFormat().open(tmp_path / "net.pt", activation="sine")
    assert torch.allclose(field(coords), sines(state, LAYOUTS["vsitzmann"], features), atol=1e-5)


def test_wide_inputs_of_others_are_no_coordinates():
    shapes = {name: tuple(value.shape) for name, value in network(LAYOUTS["plain"], dim=784).items()}
    assert detect(shapes) is None


def positional(coords, m, sigma=10.0):
    columns = []
    for j in range(coords.shape[1]):
        phases = [2 * math.pi * sigma ** (k / m) * coords[:, j] for k in range(m)]
        columns += [phase.cos() for phase in phases] + [phase.sin() for phase in phases]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("convention", ["file", "image"])
def test_encodings_of_dwsnets(convention, tmp_path):
    names = ["seq.1", "seq.2", "seq.3"]
    state, coords = network(names, dim=2 * 2 * 5, channels=1), points(2)
    torch.save(state, tmp_path / "fixed.pt")
    frequencies = torch.randn(10, 2, generator=torch.Generator().manual_seed(2))
    torch.save({"seq.0.b": frequencies, "coef": torch.ones(2), **state}, tmp_path / "gaussian.pt")
    order = [1, 0] if convention == "image" else [0, 1]  # image coordinates are rows, columns; theirs are x, y
    phase = 2 * math.pi * coords @ frequencies.T
    for file, features in [("fixed", positional(coords, 5)), ("gaussian", torch.cat([phase.cos(), phase.sin()], 1))]:
        field = SirenFormat().open(tmp_path / f"{file}.pt", convention=convention)
        assert torch.allclose(field(coords[:, order]), sines(state, names, features) + 0.5, atol=1e-4), file
        SirenFormat().save(field, tmp_path / "native.safetensors")
        again = SirenFormat().open(tmp_path / "native.safetensors")
        assert torch.equal(again(coords), field(coords)) and again.architecture == field.architecture


def test_an_encoding_that_does_not_fit_is_told(tmp_path):
    state = network(["seq.1", "seq.2", "seq.3"], dim=19)
    torch.save(state, tmp_path / "odd.pt")
    torch.save({"seq.0.b": torch.ones(4, 2), **state}, tmp_path / "wrong.pt")
    for file in ("odd", "wrong"):
        with pytest.raises(errors.CannotOpen, match="19 inputs"):
            SirenFormat().open(tmp_path / f"{file}.pt")


def test_sounds_have_defaults_of_their_own(tmp_path):
    for dialect, expected in [("vsitzmann", (30.0, Box((-100.0,), (100.0,)))), ("explore", (3000.0, Box((-1.0,), (1.0,))))]:
        torch.save(network(LAYOUTS[dialect], dim=1, channels=1), tmp_path / "net.pt")
        field = SirenFormat().open(tmp_path / "net.pt")
        assert (field.omega_0, field.domain) == expected and field.axes == ("t",)


def test_videos_and_value_functions(tmp_path):
    torch.save(network(LAYOUTS["vsitzmann"], dim=3), tmp_path / "video.pt")
    video = SirenFormat().open(tmp_path / "video.pt")
    assert (video.axes, video.channel_names) == (("t", "row", "column"), ("red", "green", "blue"))
    torch.save(network(LAYOUTS["vsitzmann"], dim=13, channels=1), tmp_path / "reach.pt")
    assert any("first coordinate is time" in text for text in SirenFormat().open(tmp_path / "reach.pt").assumed)


@pytest.mark.parametrize("container", ["tuple", "pair", "list"])
def test_networks_with_labels(container, tmp_path):
    """The three containers of DI-net: a state dict with a label map, and stacks with one class for each network."""
    state = network(LAYOUTS["explore"])
    if container == "tuple":
        torch.save((state, torch.zeros(4, 4, dtype=torch.long)), tmp_path / "net.pt")
        field = SirenFormat().open(tmp_path / "net.pt")
        assert torch.equal(field.layers[0].weight, state["net.0.linear.weight"])
        return
    packed = {name: torch.stack([value, 2 * value, 3 * value]) for name, value in state.items()}
    labels = [{"cls": 4}, {"cls": 5}, {"cls": 6}]
    torch.save((packed, labels) if container == "pair" else [packed, labels], tmp_path / "net.pt")
    format, probe = SirenFormat(), Probe(tmp_path / "net.pt")
    assert format.count(probe) == 3
    first = open_field(tmp_path / "net.pt")
    assert "index = 0 (the first of 3 networks: 0..2)" in first.assumed and first.label == 4
    fields = list(format.open_all(tmp_path / "net.pt", {"final": "sigmoid"}))
    assert [field.label for field in fields] == [4, 5, 6] and {field.final for field in fields} == {"sigmoid"}
    for scale, field in enumerate(fields, 1):
        assert torch.equal(field.layers[1].weight, scale * state["net.1.linear.weight"])
    for index in (3, -1, True, "one"):
        with pytest.raises(errors.CannotOpen, match=r"index=0..2"):
            format.open(tmp_path / "net.pt", index=index)


def test_one_gray_channel_stays_one(tmp_path):
    torch.save(network(LAYOUTS["explore"], channels=1), tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt")
    assert field.channel_names == ("gray",) and any("DI-net" in text for text in field.assumed)


@pytest.mark.parametrize("final", ["identity", "sigmoid"])
def test_values_far_outside_hint_at_a_sigmoid(final, tmp_path):
    state = network(LAYOUTS["lucidrains"])
    state["last_layer.bias"] += 0.5
    if final == "sigmoid":
        state["last_layer.weight"] *= 300
    torch.save({**state, "grid": torch.cartesian_prod(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 5))}, tmp_path / "net.pt")
    field = SirenFormat().open(tmp_path / "net.pt")
    assert any("final=sigmoid" in text for text in field.assumed) == (final == "sigmoid")
    assert any("3 rows and 5 columns" in text for text in field.assumed)
    assert not any("final=sigmoid" in text for text in SirenFormat().open(tmp_path / "net.pt", final="sigmoid").assumed)


def test_a_configuration_beside_the_file_tells_the_frequencies(tmp_path):
    torch.save(network(LAYOUTS["plain"]), tmp_path / "net.pt")
    (tmp_path / "config.json").write_text('{"model": {"first_omega_0": 12, "hidden_omega_0": 7}}')
    field = SirenFormat().open(tmp_path / "net.pt")
    assert (field.omega_0, field.hidden_omega) == (
        12,
        7,
    ) and "omega_0 = 12, hidden_omega = 7 (told by config.json)" in field.assumed
    assert SirenFormat().open(tmp_path / "net.pt", omega_0=5).omega_0 == 5


@pytest.mark.parametrize("name", ["hypo_net.net.net.0.0.weight", "hyper.hypo_net.net.net.0.0.weight"])
def test_hypernetworks_are_refused_in_words(name, tmp_path):
    torch.save({name: torch.ones(4, 2), "hyper_net.nets.0.net.net.0.0.weight": torch.ones(3, 3)}, tmp_path / "net.pt")
    with pytest.raises(errors.CannotOpen, match="a network that makes networks"):
        open_field(tmp_path / "net.pt")


def test_damaged_numbers_are_a_field_or_an_error(tmp_path):
    for value in (math.nan, math.inf):
        state = network(LAYOUTS["explore"])
        state["net.1.linear.weight"][0, 0] = value
        torch.save(state, tmp_path / "net.pt")
        assert not bool(open_field(tmp_path / "net.pt")(points(2)).isfinite().all())
    state = {name: value.long() for name, value in network(LAYOUTS["explore"]).items()}
    torch.save(state, tmp_path / "whole.pt")
    with pytest.raises(errors.CannotOpen, match="floating-point"):
        open_field(tmp_path / "whole.pt")
    torch.save(network(LAYOUTS["explore"], width=0), tmp_path / "none.pt")
    assert not SirenFormat().recognizes(Probe(tmp_path / "none.pt"))


def test_every_dialect_names_its_source_and_reader():
    import importlib

    for dialect in DIALECTS.values():
        module, function = dialect.reader.split(":")
        assert dialect.source and callable(getattr(importlib.import_module(f"inrbridge_siren.{module}"), function))
