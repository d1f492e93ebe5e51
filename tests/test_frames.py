"""The frame of a scene's files: what nerfstudio tells beside a checkpoint, and boxes carried into the world."""

import math

import pytest
import torch

from inrbridge import Box
from inrbridge.errors import CannotOpen
from inrbridge.frames import Motion


def told(matrix, scale):
    return {f"dataparser.transform.{i}.{j}": matrix[i][j] for i in range(3) for j in range(4)} | {"dataparser.scale": scale}


def turned(angle, shift):
    c, s = math.cos(angle), math.sin(angle)
    return [[c, -s, 0.0, shift[0]], [s, c, 0.0, shift[1]], [0.0, 0.0, 1.0, shift[2]]]


def test_what_lies_beside_a_checkpoint():
    motion = Motion.beside(told(turned(0.3, (1.0, 2.0, 3.0)), 0.5))
    assert motion.scale == 0.5 and motion.shift == (1.0, 2.0, 3.0) and motion.rotation[0][1] == -math.sin(0.3)


@pytest.mark.parametrize("sidecar", [{}, told(turned(0.3, (0, 0, 0)), 0.0), told(turned(0.3, (0, 0, 0)), "half"),
                                     {"dataparser.scale": 1.0}])  # fmt: skip
def test_nothing_is_made_of_a_part_of_it(sidecar):
    assert Motion.beside(sidecar) is None


def test_a_matrix_that_stretches_is_refused():
    matrix = turned(0.0, (0, 0, 0))
    matrix[0][0] = 2.0
    with pytest.raises(CannotOpen, match="no rotation"):
        Motion.beside(told(matrix, 1.0))


def test_the_box_in_the_world_just_holds_the_box_of_the_network():
    motion = Motion.beside(told(turned(math.pi / 4, (0.5, -1.0, 2.0)), 0.25))
    box = Box((-1, -1, -1), (1, 1, 1))
    world = motion.box_in_world(box)
    rotation, shift = torch.tensor(motion.rotation), torch.tensor(motion.shift)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    places = (corners / motion.scale - shift) @ rotation  # p = scale (R q + t) solved for q
    assert torch.allclose(motion.scale * (places @ rotation.T + shift), corners, atol=1e-5)
    assert torch.allclose(places.amin(0), torch.tensor(world.low), atol=1e-5)
    assert torch.allclose(places.amax(0), torch.tensor(world.high), atol=1e-5)
