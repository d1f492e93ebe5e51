"""Checkpoints of other code bases: the layouts by synthetic files, the values by real files where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_siren import SirenFormat
from inrbridge_siren.dialects import DIALECTS, detect

from inrbridge import Box, Probe, errors

DATA = os.environ.get("INRBRIDGE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")

# file, golden values, options, dialect
REAL = [
    ("siren/explore_siren_ct_a.pt", "siren/explore_siren_ct_a.golden.npz", {}, "explore"),
    ("siren/coin_minted_kodim15_192x128.pt", "siren/coin_minted_kodim15_192x128.golden.npz", {"high": [1, 2.0079]}, "coin"),
    ("siren/dalmia_celtic.model", "siren/dalmia_celtic.golden.npz", {}, "dalmia"),
    ("siren/lucidrains_minted_net.pt", "siren/lucidrains_minted.golden.npz", {"final": "sigmoid"}, "lucidrains"),
    ("siren/lucidrains_minted_wrapper.pt", "siren/lucidrains_minted.golden.npz", {"final": "sigmoid"}, "lucidrains"),
    ("siren_sdf/vsitzmann_sdf_wzyndul.pth", "siren_sdf/vsitzmann_sdf_wzyndul.golden.npz", {}, "vsitzmann"),
    ("inr_datasets/dws_minted/mnist_png_testing_7_0/checkpoints/model_final.pth",
     "inr_datasets/dws_minted/mnist_png_testing_7_0/golden.npz", {}, "dws"),
    ("inr_datasets/nfn_minted/randinit_test_9s/net0.pth",
     "inr_datasets/nfn_minted/randinit_test_9s/net0.golden.npz", {}, "explore"),
    ("inr_datasets/implicitzoo_minted/ckpts/05/000003_0000042.ckpt",
     "inr_datasets/implicitzoo_minted/ckpts/05/000003_0000042.golden.npz", {}, "implicit-zoo"),
    ("inr_datasets/dinet_minted/inet12_test_0.pt", "inr_datasets/dinet_minted/inet12_test_0.golden.npz", {}, "explore"),
]  # fmt: skip


@needs_data
@pytest.mark.parametrize(("file", "golden", "options", "dialect"), REAL, ids=[row[0] for row in REAL])
def test_real_files_have_the_values_of_the_code_that_wrote_them(file, golden, options, dialect):
    path = Path(DATA, "checkpoints", file)
    assert SirenFormat().recognizes(Probe(path))
    field = SirenFormat().open(path, **options)
    truth = np.load(Path(DATA, "checkpoints", golden), allow_pickle=False)
    with torch.no_grad():
        values = field(torch.tensor(truth["coords"])).numpy()
    assert np.abs(values - truth["output"]).max() <= 1e-5 * np.abs(truth["output"]).max()
    assert f"dialect = {dialect} (by the names of the tensors)" in field.assumed
    field.domain.check(torch.tensor(truth["coords"]))


@needs_data
@pytest.mark.parametrize(
    ("file", "golden", "mirrored"),
    [
        ("dws_minted/mnist_png_testing_7_0/checkpoints/model_final.pth", "dws_minted/mnist_png_testing_7_0/golden.npz", True),
        ("nfn_minted/randinit_test_9s/net0.pth", "nfn_minted/randinit_test_9s/net0.golden.npz", False),
        ("implicitzoo_minted/ckpts/05/000003_0000042.ckpt", "implicitzoo_minted/ckpts/05/000003_0000042.golden.npz", True),
    ],
)
def test_the_image_convention_shows_the_picture_upright_in_0_to_1(file, golden, mirrored):
    folder = Path(DATA, "checkpoints", "inr_datasets")
    truth = np.load(folder / golden, allow_pickle=False)
    image = torch.tensor(truth["image"]) / 255
    image = image[..., None] if image.ndim == 2 else image
    axes = [torch.linspace(-1, 1, size) for size in image.shape[:2]]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)  # rows, then columns

    def psnr(**options):
        with torch.no_grad():
            values = SirenFormat().open(folder / file, **options)(coords).clamp(0, 1)
        return float(-10 * (values - image).square().mean().log10())

    assert psnr(convention="image") == pytest.approx(float(truth["psnr"]), abs=0.1)
    if mirrored:
        assert psnr() < 20


@needs_data
def test_real_files_of_others_are_declined():
    others = ["fourier_features/jmclong_minted_sequential.pt", "nerf/krrish/lego_lowres.ckpt", "nerf/nerf_pl_minted/epoch=1.ckpt",
              "inr_datasets/dinet_minted/inet12_rff_test_0.pt", "inr_datasets/dws_minted/inr_rff8.pth",
              "inr_datasets/dws_minted/inr_pe8.pth", "pickled_modules/siren_protein_jayyoo.pt"]  # fmt: skip
    for file in others:
        assert not SirenFormat().recognizes(Probe(Path(DATA, "checkpoints", file))), file


@needs_data
def test_one_network_of_a_real_stack():
    path = Path(DATA, "checkpoints/inr_datasets/dinet_minted/cifar10_train_packed_3.pt")
    with pytest.raises(errors.CannotOpen, match=r"stack of 3 networks.*index=0..2"):
        SirenFormat().open(path)
    fields = [SirenFormat().open(path, index=index) for index in range(3)]
    assert not torch.equal(fields[0].layers[0].weight, fields[1].layers[0].weight)
    with_labels = SirenFormat().open(Path(DATA, "checkpoints/inr_datasets/dinet_minted/cityscapes_val_0.pt"))
    assert with_labels.channels == 3


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
    "plain": ["net.0", "net.1", "net.2"],
}


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "module."])
@pytest.mark.parametrize("dialect", LAYOUTS)
def test_layouts_under_their_wrappers(dialect, wrapper, tmp_path):
    state = network(LAYOUTS[dialect])
    if wrapper == "module.":
        content = {wrapper + name: value for name, value in state.items()}
    else:
        content = {wrapper: state} if wrapper else state
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


def test_every_dialect_has_a_layout_or_a_container_of_its_own():
    assert set(LAYOUTS) | {"implicit-zoo"} == set(DIALECTS)


def test_an_outermost_sine_is_seen(tmp_path):
    torch.save(network(["net.0.linear", "net.1.linear", "net.2.linear"]), tmp_path / "net.pt")
    assert SirenFormat().open(tmp_path / "net.pt").final == "sine"


def test_options_replace_what_is_assumed(tmp_path):
    torch.save(network(LAYOUTS["plain"], dim=3, channels=1), tmp_path / "net.pt")
    field = SirenFormat().open(
        tmp_path / "net.pt", dialect="plain", omega_0=10, hidden_omega=1, final="sigmoid", low=0, high=[1, 2, 3]
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
