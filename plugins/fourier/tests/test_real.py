"""Files that other code bases wrote, where they are at hand: their own values, and the pictures they show."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from inrbridge_fourier import FourierFormat
from PIL import Image

from inrbridge import Probe, identify, open_field

DATA = os.environ.get("INRBRIDGE_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="set INRBRIDGE_DATA to the folder of shared data")
FILES = Path(DATA or ".", "checkpoints")
TOLERANCE = 1e-5  # largest difference, relative to the largest value
JMCLONG, DINET = "fourier_features/jmclong_minted_{}.pt", "inr_datasets/dinet_minted/inet12_rff_test_0.pt"
KEES = "fourier_features/kees_phasefield_bumpyFF.pth"

# file, golden values, dialect
REAL = [
    (JMCLONG.format("sequential"), "fourier_features/jmclong_minted.golden.npz", "jmclong"),
    (JMCLONG.format("split"), "fourier_features/jmclong_minted.golden.npz", "jmclong"),
    (DINET, "inr_datasets/dinet_minted/inet12_rff_test_0.golden.npz", "dinet"),
    (KEES, "fourier_features/kees_phasefield_bumpyFF.golden.npz", "kees"),
]


@pytest.mark.parametrize(("file", "golden", "dialect"), REAL, ids=[row[0] for row in REAL])
def test_the_values_of_the_code_that_wrote_them(file, golden, dialect):
    assert identify(FILES / file) == "fourier"
    field = open_field(FILES / file)
    truth = np.load(FILES / golden, allow_pickle=False)
    with torch.no_grad():
        values = field(torch.tensor(truth["coords"])).numpy()
    assert np.abs(values - truth["output"]).max() <= TOLERANCE * np.abs(truth["output"]).max()
    assert f"dialect = {dialect} (by the names of the tensors)" in field.assumed
    field.domain.check(torch.tensor(truth["coords"]))


@pytest.mark.parametrize(
    ("file", "psnr"), [(JMCLONG.format("sequential"), 29.48), (JMCLONG.format("split"), 29.48), (DINET, 42.80)]
)
def test_pictures_look_right(file, psnr):
    if file == DINET:
        picture = np.load(FILES / "inr_datasets/dinet_minted/inet12_rff_test_0.golden.npz", allow_pickle=False)["image"]
    else:
        picture = np.asarray(Image.open(FILES / "siren/kodim15_192x128.reference.png"))
    image = torch.tensor(picture / 255, dtype=torch.float32)
    field = open_field(FILES / file, convention="image")
    low, high = field.domain.bounds
    axes = [torch.linspace(a, b, n) for a, b, n in zip(low, high, image.shape, strict=False)]
    with torch.no_grad():
        values = field(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)).clamp(0, 1)
    assert float(-10 * (values - image).square().mean().log10()) == pytest.approx(psnr, abs=0.06)


def test_a_phase_field_is_near_one_of_its_phases():
    field = open_field(FILES / KEES)
    with torch.no_grad():
        values = field(torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 0.5)
    assert float(values.abs().median()) == pytest.approx(1.0, abs=0.05)


OTHERS = [
    "siren/coin_minted_kodim15_192x128.pt", "siren/dalmia_celtic.model", "siren/functa_minted_params_16_latents.npz",
    "inr_datasets/dws_minted/inr_rff8.pth", "inr_datasets/dws_minted/inr_pe8.pth", "nerf/krrish/lego_lowres.ckpt",
    "nerf/bmild_minted/model_000010.npy", "nerf/jiayipan/lego_200.pt", "instant_ngp/torchngp_minted_b1.pth",
    "nerfstudio/minted_vanilla_step-000000100.ckpt", "plenoxels/minted_torus_mlp9.npz",
]  # fmt: skip


@pytest.mark.parametrize("file", OTHERS)
def test_files_of_others_are_declined(file):
    assert not FourierFormat().recognizes(Probe(FILES / file))
