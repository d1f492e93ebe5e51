"""The compiled sine against that of the C library, in twice the precision where there is one."""

import math

import pytest
import torch

from inrbridge.compiled import building
from inrbridge.compiled import sine as compiled

ERRORS = {torch.float32: 1.3e-7, torch.float64: 2.3e-16}


@pytest.fixture(autouse=True)
def _compiler():
    if building._compiler() is None:
        pytest.skip("there is no C++ compiler here: torch's sine does the work")
    assert building.library("sine") is not None, "the kernel does not compile"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e3, 1e4, 1e5, 1e7, 1e12])
def test_sines_and_slopes_are_those_of_the_library(dtype, size):
    x = (2 * torch.rand(10_007, dtype=dtype, generator=torch.Generator().manual_seed(0)) - 1) * size
    alone, none = compiled.sine(x)
    y, slopes = compiled.sine(x, slopes=True)
    assert none is None
    for found, truth in ((alone, x.double().sin()), (y, x.double().sin()), (slopes, x.double().cos())):
        assert float((found.double() - truth).abs().max()) <= ERRORS[dtype]
        large = truth.abs() > 0.1
        relative = (found.double() / truth - 1).abs()[large]
        assert relative.numel() == 0 or float(relative.max()) <= 1.5 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiples_of_pi_lose_nothing(dtype):
    x = (torch.arange(-4000, 4001, dtype=torch.float64) * (math.pi / 2)).to(dtype)
    y, slopes = compiled.sine(x, slopes=True)
    assert float((y.double() - x.double().sin()).abs().max()) <= ERRORS[dtype]
    assert float((slopes.double() - x.double().cos()).abs().max()) <= ERRORS[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_frequency_multiplies_first(dtype):
    x = torch.randn(1001, dtype=dtype, generator=torch.Generator().manual_seed(0))
    y, slopes = compiled.sine(x, 30.0, slopes=True)
    assert torch.allclose(y, torch.sin(30.0 * x), atol=2 * ERRORS[dtype], rtol=0)
    assert torch.allclose(slopes, 30.0 * torch.cos(30.0 * x), atol=60 * ERRORS[dtype], rtol=0)


def test_what_is_no_number_stays_none_and_zeros_keep_their_sign():
    y, slopes = compiled.sine(torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30]), slopes=True)
    assert bool(y[:3].isnan().all()) and bool(slopes[:3].isnan().all())
    assert y[3:].tolist() == [0.0, 0.0, pytest.approx(1e-30)] and math.copysign(1, float(y[4])) == -1.0
    assert slopes[3:].tolist() == [1.0, 1.0, 1.0]


def test_sines_may_take_the_place_of_their_arguments():
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    expected, _ = compiled.sine(x)
    found, _ = compiled.sine(x, out=x)
    assert found is x and torch.equal(x, expected)


def test_it_takes_dense_numbers_of_the_cpu():
    assert compiled.available(torch.zeros(3)) and compiled.available(torch.zeros(3, dtype=torch.float64))
    assert not compiled.available(torch.zeros(3).half()) and not compiled.available(torch.zeros(3, 4).mT)
    assert compiled.sine(torch.zeros(0))[0].shape == (0,)
