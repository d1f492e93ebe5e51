"""Q23 [appendix C]: noise, mirrors and warps are changes of the field, so a net sees one thing, however they are made.

Three ways to see a changed field: transform the field and sample it; ask the field at changed coordinates; on grids, change the
array of its samples. (Dropout of points: test_property_q23_dropout.py; encodings: here against their closed form.)
"""

import math

import pytest
import torch
from reference_fields import SineField

from inrbridge.discretization import Discretization
from inrbridge.domains import Box, Torus
from inrbridge.models import build_model
from inrbridge.nn import PositionalEncoding, Sampled, Warp
from inrbridge.sampling import grid, lattice, sobol
from inrbridge.training.augmenting import augmented
from inrbridge.training.config import AugmentConfig
from inrbridge.transforms import NoisyField, WarpField, augmentation

BOX, DOUBLE = Box.centered(2), {"dtype": torch.float64}


def net(generator):
    return build_model("convnet", BOX, 1, 3, widths=(4, 6), resolution=8, generator=generator).double().eval()


def outputs(generator, *samples):
    model = net(generator)
    with torch.no_grad():
        return [model(Sampled(lattice(BOX, 256, **DOUBLE), values)) for values in samples]


def test_a_mirrored_field_is_the_field_at_mirrored_coordinates(generator):
    field, x = SineField(), lattice(BOX, 256, **DOUBLE)
    seen = augmentation.flipped(field, [1])(x.points)[None]
    read = field(x.points * torch.tensor([1.0, -1.0]))[None]
    first, second, plain = outputs(generator, seen.detach(), read.detach(), field(x.points)[None].detach())
    torch.testing.assert_close(first, second)
    assert float((first - plain).abs().max()) > 1e-3  # negative control: a mirror is seen


def test_on_a_grid_a_mirror_reverses_the_array_and_a_quarter_turn_turns_it():
    field, x = SineField(), grid(BOX, (12, 12), **DOUBLE)
    image = field(x.points).reshape(12, 12)
    torch.testing.assert_close(augmentation.flipped(field, [0])(x.points).reshape(12, 12), image.flip(0))
    torch.testing.assert_close(augmentation.rotated(field, math.pi / 2)(x.points).reshape(12, 12), torch.rot90(image, 1, (0, 1)))
    assert not torch.allclose(augmentation.rotated(field, -math.pi / 2)(x.points).reshape(12, 12), torch.rot90(image, 1, (0, 1)))


def test_coordinate_noise_of_training_is_the_noisy_field():
    """One generator, one noise: the coordinates of a step and the transform of the field agree."""
    field, x = SineField(), lattice(BOX, 256, **DOUBLE)
    chance = torch.Generator().manual_seed(4)
    coords = augmented(x, AugmentConfig(noise=0.5), 1, chance)[0]
    noise = (coords - x.points) / (0.5 * x.spacing)
    inside = (coords.abs() < 1).all(1)
    assert 0.9 < float(noise[inside].std()) < 1.05
    again = torch.Generator().manual_seed(4)
    augmentation.draw_views(BOX, 1, again)  # what a step draws before its noise
    noisy = NoisyField(field, 0.5 * x.spacing, again)
    torch.testing.assert_close(noisy(x.points), field(coords))


def test_noise_has_the_mean_effect_of_a_blur(generator):
    """E f(x + e) is f convolved with the noise's density: for a sine of frequency w, exp(-s^2 w^2 / 2) times itself."""
    torus = Torus((1.0, 1.0))

    def wave(x):
        return torch.sin(2 * math.pi * x[..., :1])

    wave.domain, wave.channels = torus, 1
    noisy, x = NoisyField(wave, 0.1, generator), sobol(torus, 64, **DOUBLE).points
    mean = torch.stack([noisy(x) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, wave(x) * math.exp(-((0.1 * 2 * math.pi) ** 2) / 2), rtol=0, atol=0.045)
    assert float((mean - wave(x)).abs().max()) > 0.1  # negative control: it is not f


def test_a_warp_of_zero_is_the_identity_and_a_constant_one_a_translation(generator):
    """Of fields exactly; of samples up to the error of their interpolation, and exactly where u = 0."""
    field, x = SineField(omega=2.0), sobol(Box.centered(2, 0.5), 512, generator, **DOUBLE)
    f = Sampled(x, field(x.points)[None].detach())
    assert torch.equal(WarpField(field, (0.0, 0.0))(x.points), field(x.points))
    torch.testing.assert_close(Warp((0.0, 0.0))(f).values, f.values, rtol=1e-9, atol=1e-9)
    moved = torch.tensor([0.07, -0.11], **DOUBLE)
    torch.testing.assert_close(WarpField(field, moved.tolist())(x.points), field(x.points + moved))
    inside = ((x.points + moved).abs() < 0.5).all(1)
    got = Warp(moved.tolist())(f).values[0, inside]
    torch.testing.assert_close(got, field(x.points + moved)[inside].detach(), rtol=0, atol=5e-4)
    assert float((got - f.values[0, inside]).abs().max()) > 0.02  # negative control


def test_warps_of_field_and_of_samples_converge_to_each_other():
    field, errors = SineField(omega=2.0), []
    bend = lambda x: 0.2 * torch.sin(3 * x.flip(-1)) * (1 - x**2)  # noqa: E731
    for n in (128, 2048):
        x = lattice(BOX, n, **DOUBLE)
        exact = WarpField(field, bend)(x.points).detach()
        errors.append(float((Warp(bend)(Sampled(x, field(x.points)[None].detach())).values[0] - exact).abs().mean()))
    assert errors[1] < errors[0] / 10, errors


@pytest.mark.parametrize("frequencies", [(1.0,), (0.5, 3.0)])
def test_the_positional_encoding_is_its_closed_form(frequencies):
    """Feature (2 l + s) d + a: sin or cos of 2 pi F_l u_a, one number at a time."""
    box = Box((1.0, -2.0), (3.0, 2.0))
    x = sobol(box, 16, **DOUBLE)
    out = PositionalEncoding(frequencies, mode="concat")(Sampled(x, torch.zeros(1, 16, 1, **DOUBLE))).values[0, :, 1:]
    for j, point in enumerate(x.points.tolist()):
        for i, frequency in enumerate(frequencies):
            for a in (0, 1):
                angle = 2 * math.pi * frequency * (point[a] - box.low[a]) / box.size[a]
                assert float(out[j, 4 * i + a]) == pytest.approx(math.sin(angle), abs=1e-12)
                assert float(out[j, 4 * i + 2 + a]) == pytest.approx(math.cos(angle), abs=1e-12)


def test_the_encoding_knows_the_place_where_the_field_alone_does_not():
    """A constant field moved is itself; with its encoding it is not, and the encoding does not depend on the other points."""
    x = lattice(BOX, 64, **DOUBLE)
    half = Discretization(x.points[:32], x.weights[:32], BOX)
    encode = PositionalEncoding((1.0,))
    whole = encode(Sampled(x, torch.ones(1, 64, 2, **DOUBLE))).values
    assert torch.equal(encode(Sampled(half, torch.ones(1, 32, 2, **DOUBLE))).values, whole[:, :32])
    assert float(whole.std()) > 0.1
