"""A network may ask for views, which only tensors in the usual memory layout have; samples (b, n, c) are laid out otherwise."""

import pytest
import torch
from reference_calibration import waves
from torch import nn

from inrbridge.conversion import convert
from inrbridge.conversion.calibrating import calibrate
from inrbridge.domains import Box
from inrbridge.sampling import sobol
from inrbridge.stacking import stack


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.pool, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.MaxPool2d(2), nn.Linear(8 * 16, 3)

    def forward(self, x):
        return self.head(self.pool(torch.relu(self.body(x))).view(x.shape[0], 8 * 16))


@pytest.mark.parametrize("levels", ["points", "inner-grids", "grids"])
def test_views_are_had_on_pixels_and_points(levels):
    box = Box.centered(2)
    net = convert(Viewing().eval(), box, 8, levels=levels)
    fields = waves(box, 2, 20, 0)
    images = stack(fields)(net.pixels().points).transpose(1, 2).unflatten(2, (8, 8)).contiguous()
    with torch.no_grad():
        assert torch.equal(net(fields, net.pixels()), net(images))
        assert net(fields, sobol(box, 100)).shape == (20, 3)
    calibrate(net, fields, sobol(box, 100))
