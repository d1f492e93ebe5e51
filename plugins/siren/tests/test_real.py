"""Files that other code bases wrote, where they are at hand: their own values, and the pictures they show."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_siren import SirenFormat
from PIL import Image

from inrbridge import Probe, errors, identify, open_field

DATA = os.environ.get("INRBRIDGE_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")
FILES = Path(DATA or ".", "checkpoints")
TOLERANCE = 1e-5  # largest difference, relative to the largest value

# file, golden values, options, dialect
REAL = [
    ("siren/explore_siren_ct_a.pt", "siren/explore_siren_ct_a.golden.npz", {}, "explore"),
    ("siren/coin_minted_kodim15_192x128.pt", "siren/coin_minted_kodim15_192x128.golden.npz", {"size": [128, 192]}, "coin"),
    ("siren/dalmia_celtic.model", "siren/dalmia_celtic.golden.npz", {}, "dalmia"),
    ("siren/lucidrains_minted_net.pt", "siren/lucidrains_minted.golden.npz", {"final": "sigmoid"}, "lucidrains"),
    ("siren/lucidrains_minted_wrapper.pt", "siren/lucidrains_minted.golden.npz", {"final": "sigmoid"}, "lucidrains"),
    ("siren/functa_minted_params_16_latents.npz", "siren/functa_minted.golden.npz",
     {"modulations": FILES / "siren/functa_minted_modulations_16_latents.npz"}, "functa"),
    ("siren_sdf/vsitzmann_sdf_wzyndul.pth", "siren_sdf/vsitzmann_sdf_wzyndul.golden.npz", {}, "vsitzmann"),
    ("inr_datasets/dws_minted/mnist_png_testing_7_0/checkpoints/model_final.pth",
     "inr_datasets/dws_minted/mnist_png_testing_7_0/golden.npz", {}, "dws"),
    ("inr_datasets/dws_minted/inr_pe8.pth", "inr_datasets/dws_minted/inr_pe8.golden.npz", {}, "dws"),
    ("inr_datasets/nfn_minted/randinit_test_9s/net0.pth",
     "inr_datasets/nfn_minted/randinit_test_9s/net0.golden.npz", {}, "explore"),
    ("inr_datasets/implicitzoo_minted/ckpts/05/000003_0000042.ckpt",
     "inr_datasets/implicitzoo_minted/ckpts/05/000003_0000042.golden.npz", {}, "implicit-zoo"),
    ("inr_datasets/dinet_minted/inet12_test_0.pt", "inr_datasets/dinet_minted/inet12_test_0.golden.npz", {}, "explore"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "golden", "options", "dialect"), REAL, ids=[row[0] for row in REAL])
def test_the_values_of_the_code_that_wrote_them(file, golden, options, dialect):
    assert identify(FILES / file) == "siren"
    field = open_field(FILES / file, **options)
    truth = np.load(FILES / golden, allow_pickle=False)
    coords = torch.tensor(truth["coords"])
    with torch.no_grad():
        values = field(coords).numpy()
    assert np.abs(values - truth["output"]).max() <= TOLERANCE * np.abs(truth["output"]).max()
    assert f"dialect = {dialect} (by the names of the tensors)" in field.assumed
    assert not any("rather looks like" in text for text in field.assumed)
    if "coin" not in file:
        field.domain.check(coords)


NFN, ZOO = "inr_datasets/nfn_minted/randinit_test_9s/net0.pth", "inr_datasets/implicitzoo_minted/ckpts/05/000003_0000042.ckpt"
DWS = "inr_datasets/dws_minted/mnist_png_testing_{}/checkpoints/model_final.pth"
DINET = "inr_datasets/dinet_minted/inet12_test_0.pt"


def stored(golden):
    return np.load(FILES / golden, allow_pickle=False)["image"]


def kodim():
    return np.asarray(Image.open(FILES / "siren/kodim15_192x128.reference.png"))


def celtic():
    return np.asarray(Image.open(FILES / "siren/dalmia_celtic.reference.jpg").convert("RGB"))


# file, options, picture, PSNR in dB, whether coordinates end before the last corner
PICTURES = [
    ("siren/dalmia_celtic.model", {}, celtic, 19.17, True),
    ("siren/coin_minted_kodim15_192x128.pt", {"size": [128, 192], "final": "clamp"}, kodim, 29.49, False),
    ("siren/lucidrains_minted_net.pt", {"final": "sigmoid"}, kodim, 27.71, False),
    ("siren/lucidrains_minted_wrapper.pt", {"final": "sigmoid"}, kodim, 27.71, False),
    (DWS.format("7_0"), {}, lambda: stored("inr_datasets/dws_minted/mnist_png_testing_7_0/golden.npz"), 26.20, False),
    (NFN, {}, lambda: stored("inr_datasets/nfn_minted/randinit_test_9s/net0.golden.npz"), 43.93, False),
    (ZOO, {}, lambda: stored("inr_datasets/implicitzoo_minted/ckpts/05/000003_0000042.golden.npz"), 31.94, False),
    (DINET, {}, lambda: stored("inr_datasets/dinet_minted/inet12_test_0.golden.npz"), 45.39, False),
]


@pytest.mark.parametrize(("file", "options", "picture", "psnr", "half_open"), PICTURES, ids=[row[0] for row in PICTURES])
def test_pictures_look_right(file, options, picture, psnr, half_open):
    """Opened with convention="image": rows, then columns, over the domain; values in [0, 1]."""
    image = torch.tensor(picture() / 255, dtype=torch.float32)
    image = image[..., None] if image.ndim == 2 else image
    field = open_field(FILES / file, convention="image", **options)
    low, high = field.domain.bounds
    ends = [n if half_open else n - 1 for n in image.shape]
    axes = [a + (b - a) / end * torch.arange(n) for a, b, n, end in zip(low, high, image.shape, ends, strict=False)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    some = torch.arange(len(coords))[:: 1 + len(coords) // 30000]  # of a large picture
    with torch.no_grad():
        values = field(coords[some]).clamp(0, 1)
    assert float(-10 * (values - image.reshape(len(coords), -1)[some]).square().mean().log10()) == pytest.approx(psnr, abs=0.06)


def test_a_distance_field():
    """Inside 3.6 % of the box, gradients of length 1, as its golden notes say."""
    field = open_field(FILES / "siren_sdf/vsitzmann_sdf_wzyndul.pth")
    points = (2 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) - 1).requires_grad_()
    values = field(points)
    (gradient,) = torch.autograd.grad(values.sum(), points)
    assert field.channel_names == ("sdf",)
    assert float((values < 0).float().mean()) == pytest.approx(0.036, abs=0.01)
    assert float(gradient.norm(dim=1).median()) == pytest.approx(1.0, abs=0.02)


def test_the_networks_of_a_stack():
    path = FILES / "inr_datasets/dinet_minted/cifar10_train_packed_3.pt"
    format = SirenFormat()
    assert format.count(Probe(path)) == 3
    fields = list(format.open_all(path, {}))
    assert [field.label for field in fields] == [9, 5, 8]
    assert not torch.equal(fields[0].layers[0].weight, fields[1].layers[0].weight)
    assert torch.equal(open_field(path).layers[0].weight, fields[0].layers[0].weight)
    assert open_field(FILES / "inr_datasets/dinet_minted/cityscapes_val_0.pt").channels == 3


def test_a_pickled_module_tells_its_frequencies():
    field = open_field(FILES / "pickled_modules/siren_protein_jayyoo.pt")
    assert (field.omega_0, field.hidden_omega, field.domain.dim, field.hidden) == (50.0, 50.0, 3, (256,) * 8)


def test_what_opens_without_golden_values():
    modulated = open_field(FILES / "siren/lucidrains_minted_modulated.pt", latent=[0.1] * 8, final="sigmoid")
    assert modulated(torch.zeros(1, 2)).shape == (1, 3)
    gaussian = open_field(FILES / "inr_datasets/dws_minted/inr_rff8.pth")
    assert gaussian.architecture["encoding"] == "waves" and gaussian.architecture["features"] == 8
    assert any("final=sigmoid" in text for text in open_field(FILES / "siren/lucidrains_minted_net.pt").assumed)
    with pytest.raises(errors.CannotOpen, match=r"functa_minted_params_16_latents\.npz beside it"):
        open_field(FILES / "siren/functa_minted_modulations_16_latents.npz")


OTHERS = [
    "fourier_features/jmclong_minted_sequential.pt", "fourier_features/kees_phasefield_bumpyFF.pth",
    "inr_datasets/dinet_minted/inet12_rff_test_0.pt", "nerf/krrish/lego_lowres.ckpt", "nerf/nerf_pl_minted/epoch=1.ckpt",
    "nerf/bmild_minted/model_000010.npy", "instant_ngp/torchngp_minted_b1.pth", "plenoxels/minted_torus_sh9.npz",
    "siren/coin_minted_kodim15_192x128.golden.npz",
]  # fmt: skip


@pytest.mark.parametrize("file", OTHERS)
def test_files_of_others_are_declined(file):
    assert not SirenFormat().recognizes(Probe(FILES / file))
