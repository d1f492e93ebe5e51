"""Q12: max pooling does not depend on the number of points (appendix C); on a grid a constant makes it the discrete one."""

import pytest
import torch
from torch.nn import functional

from inrbridge.domains import Box
from inrbridge.nn import MaxPool, Sampled
from inrbridge.sampling import grid


def one_window(n, fields, generator, bound=2.0):
    """Independent U(-b, b) values at n points that all windows hold."""
    points = grid(Box.unit(1), n, dtype=torch.float64)
    return Sampled(points, (2 * torch.rand(fields, n, 1, generator=generator, dtype=torch.float64) - 1) * bound)


@pytest.mark.parametrize(("n", "measured"), [(4, 0.599), (9, 0.800), (25, 0.923)])
def test_plain_maximum_of_uniform_values_grows(n, measured, generator):
    out = MaxPool(3.0, correction=False)(one_window(n, 20_000, generator))
    assert float(out.values.mean()) / 2 == pytest.approx(measured, abs=6e-3)
    assert (n - 1) / (n + 1) == pytest.approx(measured, abs=2e-3)


@pytest.mark.parametrize("n", [4, 6, 9, 16, 25, 64])
def test_scaled_maximum_is_unbiased(n, generator):
    """Within 1 %; with 2 or 3 points the rule leaves 17 and 3 %, since a negative maximum is not scaled."""
    out = MaxPool(3.0)(one_window(n, 60_000, generator))
    assert float(out.values.mean()) == pytest.approx(2.0, rel=0.013 if n == 4 else 0.01)


def test_a_single_point_and_a_negative_maximum_are_returned_as_they_are(generator):
    alone = one_window(1, 4, generator)
    assert torch.equal(MaxPool(3.0, constant=0.6)(alone).values, alone.values)
    many = one_window(9, 4, generator)
    negative = many.with_values(-many.values.abs())
    assert torch.equal(MaxPool(3.0, constant=0.6)(negative).values[:, 0], negative.values.amax(1))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_constant_that_matches_the_discrete_layer(k, generator):
    """3/5 for 2x2, (n - 1) / (n + 1) with n = k^2 in general; 3/5 is wrong for other kernels (negative control)."""
    n = 2 * k
    points = grid(Box.unit(2), (n, n), dtype=torch.float64)
    x = Sampled(points, torch.randn(2, n * n, 3, generator=generator, dtype=torch.float64))
    expected = functional.max_pool2d(x.values.unflatten(1, (n, n)).movedim(-1, 1), k).movedim(1, -1).flatten(1, 2)
    right = MaxPool.from_kernel(k, 1 / n, matches=None, constant=(k**2 - 1) / (k**2 + 1))(x).values
    torch.testing.assert_close(right, expected, rtol=0, atol=1e-10)
    three_fifths = MaxPool.from_kernel(k, 1 / n, matches=None, constant=3 / 5)(x).values
    assert torch.allclose(three_fifths, expected, atol=1e-10) == (k == 2)


def test_matched_layer_agrees_on_finer_points(generator):
    """The layer copied from a 3x3 kernel keeps its scale on a grid twice as fine, where the plain maximum grows."""
    coarse, fine = (grid(Box.unit(2), (n, n), dtype=torch.float64) for n in (12, 36))
    outputs = {}
    for correction in (True, False):
        layer = MaxPool.from_kernel(3, 1 / 12, 1, 1, correction=correction)
        outputs[correction] = [
            float(layer(Sampled(p, 2 * torch.rand(2, len(p), 8, generator=generator, dtype=torch.float64) - 1)).values.mean())
            for p in (coarse, fine)
        ]
    matched, plain = outputs[True], outputs[False]
    assert matched[1] == pytest.approx(matched[0], rel=0.02)
    assert plain[1] > 1.1 * plain[0]
