"""The input normalization of a pretrained network, as a part of it."""

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """A network behind (x - mean) / std, so that it takes RGB in [0, 1] (b, 3, height, width).

    Args:
        net: takes normalized channels.
        mean, std: one for each channel, in units of [0, 1], in the order that the network wants.
        flip: the network wants BGR; mean and std are given in that order.
    """

    def __init__(self, net: nn.Module, mean, std, flip: bool = False):
        super().__init__()
        self.net, self.flip = net, flip
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.flip:
            x = x.flip(1)
        return self.net((x - self.mean) / self.std)
