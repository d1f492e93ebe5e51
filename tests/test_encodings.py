"""Features of coordinates and directions, against loops that follow their definitions."""

import math

import pytest
import torch

from inrbridge import Sphere
from inrbridge.encodings import frequency_encoding, spherical_harmonics
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.sampling import lattice


def slow_columns(x, frequencies, order, cosine_first):
    names = {"f": range(len(frequencies)), "s": range(2), "c": range(len(x))}
    columns = []
    for i in names[order[0]]:
        for j in names[order[1]]:
            for k in names[order[2]]:
                at = dict(zip(order, (i, j, k), strict=True))
                wave = (math.cos, math.sin) if cosine_first else (math.sin, math.cos)
                columns.append(wave[at["s"]](frequencies[at["f"]] * x[at["c"]]))
    return columns


@pytest.mark.parametrize("order", ["fsc", "sfc", "scf", "cfs", "fcs", "csf"])
@pytest.mark.parametrize("cosine_first", [False, True])
def test_columns_are_nested_as_the_order_says(order, cosine_first):
    x, frequencies = torch.tensor([0.3, -0.8], dtype=torch.float64), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    expected = slow_columns(x.tolist(), frequencies.tolist(), order, cosine_first)
    found = frequency_encoding(x, frequencies, order, cosine_first=cosine_first)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(frequency_encoding(x, frequencies, order, raw="first", cosine_first=cosine_first)[2:], found)
    assert torch.equal(frequency_encoding(x, frequencies, order, raw="last", cosine_first=cosine_first)[:-2], found)


def test_raw_coordinates_can_precede_the_columns_of_each():
    x, frequencies = torch.tensor([[0.3, -0.8]]), torch.tensor([1.0, 2.0])
    found = frequency_encoding(x, frequencies, "cfs", raw="each")
    plain = frequency_encoding(x, frequencies, "cfs")
    torch.testing.assert_close(found, torch.cat([x[:, :1], plain[:, :4], x[:, 1:], plain[:, 4:]], -1))


def test_shifted_sines_are_cosines_up_to_rounding():
    x, frequencies = torch.tensor([0.3, -0.8]), torch.tensor([1.0, 2.0])
    found = frequency_encoding(x, frequencies, "sfc", shifted=True)
    phase = (x * frequencies[:, None]).flatten()
    assert torch.equal(found, torch.cat([torch.sin(phase), torch.sin(phase + math.pi / 2)]))
    torch.testing.assert_close(found, frequency_encoding(x, frequencies, "sfc"))


def test_an_order_that_is_none_is_told():
    with pytest.raises(ConfigError, match="expected the letters"):
        frequency_encoding(torch.zeros(2), torch.ones(1), "ffc")
    with pytest.raises(ConfigError, match="each"):
        frequency_encoding(torch.zeros(2), torch.ones(1), "fsc", raw="each")


def test_harmonics_are_orthonormal_on_the_sphere():
    points = lattice(Sphere(), 2**14)
    values = spherical_harmonics(points.points.double(), 8)
    gram = torch.einsum("n,ni,nj->ij", points.weights.double(), values, values)
    torch.testing.assert_close(gram, torch.eye(64, dtype=torch.float64), atol=2e-3, rtol=0)


def test_the_first_harmonics_have_the_signs_of_condon_and_shortley():
    direction = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.7]], dtype=torch.float64), dim=-1)
    x, y, z = direction[0].tolist()
    root = math.sqrt(3 / (4 * math.pi))
    expected = [math.sqrt(1 / (4 * math.pi)), -root * y, root * z, -root * x, math.sqrt(15 / (4 * math.pi)) * x * y]
    torch.testing.assert_close(spherical_harmonics(direction, 3)[0, :5], torch.tensor(expected, dtype=torch.float64))
    plain = spherical_harmonics(direction, 2, "plain")[0]
    assert plain[1] == -spherical_harmonics(direction, 2)[0, 1]


def test_harmonics_can_be_differentiated():
    direction = torch.tensor([[0.3, -0.5, 0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: spherical_harmonics(d, 5), direction)


def test_wrong_shapes_and_degrees_are_told():
    with pytest.raises(ShapeMismatch):
        spherical_harmonics(torch.zeros(4, 2), 2)
    with pytest.raises(ConfigError):
        spherical_harmonics(torch.zeros(4, 3), 9)
