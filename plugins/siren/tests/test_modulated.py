"""Networks that a latent vector modulates: lucidrains and functa, against slow twins that keep the modulation apart."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from inrbridge_siren import SirenFormat

from inrbridge import Probe, errors, identify, open_field


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


POINTS = torch.rand(9, 2, generator=torch.Generator().manual_seed(9))
LATENT = [0.5, -1.0, 2.0]


@pytest.fixture
def lucidrains(tmp_path):
    """A wrapped SirenNet of three layers of 6 units with a modulator of a latent of 3."""
    state = {"grid": torch.zeros(4, 2)}
    for i in range(3):
        state[f"net.layers.{i}.weight"] = rand(6, 2 if i == 0 else 6, seed=i) / 4
        state[f"net.layers.{i}.bias"] = rand(6, seed=10 + i) / 4
        state[f"modulator.layers.{i}.0.weight"] = rand(6, 3 if i == 0 else 9, seed=20 + i)
        state[f"modulator.layers.{i}.0.bias"] = rand(6, seed=30 + i)
    state |= {"net.last_layer.weight": rand(3, 6, seed=40), "net.last_layer.bias": rand(3, seed=41)}
    torch.save(state, tmp_path / "net.pt")
    return state, tmp_path / "net.pt"


@pytest.mark.parametrize("latent", [None, LATENT])
def test_a_modulator_of_lucidrains(latent, lucidrains):
    state, path = lucidrains
    z = torch.tensor(latent or [0.0] * 3)
    x, h = POINTS, None
    for i in range(3):
        h = torch.relu(
            state[f"modulator.layers.{i}.0.weight"] @ (z if h is None else torch.cat([h, z]))
            + state[f"modulator.layers.{i}.0.bias"]
        )
        x = torch.sin((30 if i == 0 else 1) * (x @ state[f"net.layers.{i}.weight"].T + state[f"net.layers.{i}.bias"])) * h
    expected = x @ state["net.last_layer.weight"].T + state["net.last_layer.bias"]
    field = open_field(path, **({} if latent is None else {"latent": latent}))
    assert torch.allclose(field(POINTS), expected, atol=1e-5)
    assert any(text.startswith("latent = zeros") for text in field.assumed) == (latent is None)
    assert not any("hidden_omega = 30:" in text for text in field.assumed)


@pytest.mark.parametrize(
    ("latent", "text"), [([1.0], "expected 3"), (["a"] * 3, "3 numbers"), (5, "3 numbers"), ([float("nan")] * 3, "finite")]
)
def test_a_latent_that_does_not_fit_is_told(latent, text, lucidrains):
    with pytest.raises(errors.ConfigError, match=text):
        open_field(lucidrains[1], latent=latent)


def test_a_latent_for_a_network_without_modulator_is_told(lucidrains, tmp_path):
    torch.save({name: value for name, value in lucidrains[0].items() if "modulator" not in name}, tmp_path / "plain.pt")
    with pytest.raises(errors.CannotOpen, match="no modulator"):
        open_field(tmp_path / "plain.pt", latent=LATENT)


def test_a_modulator_with_missing_layers_is_refused(lucidrains, tmp_path):
    state = {name: value for name, value in lucidrains[0].items() if not name.startswith("modulator.layers.1")}
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(errors.CannotOpen, match=r"layers \[0, 2\]"):
        open_field(tmp_path / "net.pt")


def functa(path, kinds, width=5, depth=4, latent=3, hidden=()):
    """Write a network of functa with a latent of 3, and return its parameters as they are named there."""
    top, params = "latent_modulated_siren", {}
    for i in range(depth):
        sizes = (2 if i == 0 else width, 3 if i == depth - 1 else width)
        name = f"{top}/modulated_siren_layer{f'_{i}' if i else ''}/linear"
        params[name] = {"w": rand(*sizes, seed=i).numpy() / 4, "b": rand(sizes[1], seed=10 + i).numpy() / 4}
    sizes = [latent, *hidden, len(kinds) * width * (depth - 1)]
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        name = f"{top}/~/latent_to_modulation/~/mlp/~/linear_{i}"
        params[name] = {"w": rand(fan_in, fan_out, seed=20 + i).numpy() / 4, "b": rand(fan_out, seed=30 + i).numpy() / 4}
    params[f"{top}/~/latent_vector"] = {"latent_vector": rand(latent, seed=50).numpy()}
    config = {"model": {"w0": 6.0, "modulate_scale": "scale" in kinds, "modulate_shift": "shift" in kinds}}
    with path.open("wb") as file:
        pickle.dump({"params": params, "config": config}, file)
    return params


def functa_slowly(params, kinds, latent, x, width=5, depth=4):
    """Functa's own way: the modulation is applied between the linear layer and the sine."""
    top = "latent_modulated_siren"
    value, i = np.asarray(latent, "f4"), 0
    while f"{top}/~/latent_to_modulation/~/mlp/~/linear_{i}" in params:
        layer = params[f"{top}/~/latent_to_modulation/~/mlp/~/linear_{i}"]
        value, i = (np.maximum(value, 0) if i else value) @ layer["w"] + layer["b"], i + 1
    pieces = iter(value.reshape(-1, width))
    for i in range(depth):
        layer = params[f"{top}/modulated_siren_layer{f'_{i}' if i else ''}/linear"]
        x = x @ layer["w"] + layer["b"]
        if i < depth - 1:
            for kind in kinds:
                x = x * (next(pieces) + 1) if kind == "scale" else x + next(pieces)
            x = np.sin(6 * x)
    return x + 0.5


@pytest.mark.parametrize("hidden", [(), (7,)])
@pytest.mark.parametrize("kinds", [("shift",), ("scale",), ("scale", "shift")])
def test_functa(kinds, hidden, tmp_path):
    params = functa(tmp_path / "celeba_params_3_latents.npz", kinds, hidden=hidden)
    field = open_field(tmp_path / "celeba_params_3_latents.npz", latent=LATENT)
    expected = functa_slowly(params, kinds, LATENT, POINTS.numpy())
    assert np.allclose(field(POINTS).detach().numpy(), expected, atol=2e-5)
    assert field.omega_0 == 6 and field.domain.low == (0.0, 0.0) and field.axes == ("row", "column")
    stored = open_field(tmp_path / "celeba_params_3_latents.npz")
    expected = functa_slowly(params, kinds, params["latent_modulated_siren/~/latent_vector"]["latent_vector"], POINTS.numpy())
    assert np.allclose(stored(POINTS).detach().numpy(), expected, atol=2e-5)
    assert any("of no sample" in text for text in stored.assumed)


@pytest.fixture
def release(tmp_path):
    """Parameters of functa and latent vectors of five samples."""
    params = functa(tmp_path / "celeba_params_3_latents.npz", ("shift",))
    content = {split: {"modulation": rand(n, 3, seed=n).numpy(), "psnr": np.ones(n)} for split, n in (("train", 3), ("test", 2))}
    with (tmp_path / "celeba_modulations_3_latents.npz").open("wb") as file:
        pickle.dump(content, file)
    return params, content, tmp_path


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 2), ("test", 1)])
def test_a_sample_of_functa(split, index, release):
    params, content, folder = release
    told = {"modulations": folder / "celeba_modulations_3_latents.npz", "index": index, "split": split}
    field = open_field(folder / "celeba_params_3_latents.npz", **told)
    expected = functa_slowly(params, ("shift",), content[split]["modulation"][index], POINTS.numpy())
    assert np.allclose(field(POINTS).detach().numpy(), expected, atol=2e-5)


def test_modulations_alone_say_where_their_network_is(release):
    path = release[2] / "celeba_modulations_3_latents.npz"
    assert identify(path) == "siren"
    with pytest.raises(errors.CannotOpen, match=r"open celeba_params_3_latents\.npz beside it with modulations=.*index=0"):
        open_field(path)
    other = path.rename(path.with_name("latents.npz"))
    with pytest.raises(errors.CannotOpen, match=r"\.\.\._params_3_latents.npz of the same release"):
        open_field(other)


def test_wrong_choices_among_modulations_are_told(release):
    params, modulations = (release[2] / f"celeba_{kind}_3_latents.npz" for kind in ("params", "modulations"))
    first = open_field(params, modulations=modulations)
    assert {"split = train (default of dialect functa)", "index = 0 (the first of 3 networks: 0..2)"} <= set(first.assumed)
    wrong = [({"split": "val"}, errors.UnknownName, "test, train"), ({"index": 3}, errors.CannotOpen, r"index=0\.\.2"),
             ({"latent": LATENT}, errors.ConfigError, "one of them")]  # fmt: skip
    for options, error, text in wrong:
        with pytest.raises(error, match=text):
            SirenFormat().open(params, modulations=modulations, **options)
    with pytest.raises(errors.CannotOpen, match="holds no modulations"):
        open_field(params, modulations=params)
    with pytest.raises(errors.CannotOpen):
        open_field(params, modulations=release[2] / "nowhere.npz")


def test_a_damaged_network_of_functa_is_refused(tmp_path):
    params = functa(tmp_path / "net.npz", ("shift",))
    layer = params["latent_modulated_siren/modulated_siren_layer_2/linear"]
    for spoil in ({"w": layer["w"][:3], "b": layer["b"]}, {"w": layer["w"]}, {"w": layer["w"], "b": layer["b"][:2]}):
        params["latent_modulated_siren/modulated_siren_layer_2/linear"] = spoil
        with (tmp_path / "net.npz").open("wb") as file:
            pickle.dump({"params": params}, file)
        assert SirenFormat().recognizes(Probe(tmp_path / "net.npz"))
        with pytest.raises(errors.CannotOpen):
            SirenFormat().open(tmp_path / "net.npz")
