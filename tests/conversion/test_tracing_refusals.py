"""What no program can say is refused by naming the step, its line and why."""

import random

import pytest
import torch
import torch.nn.functional as F
from reference_conversion import converted, images_of, on_grid
from torch import nn

from inrbridge import Ball, Box, convert
from inrbridge.errors import ConfigError

C, SHAPE = 3, (6, 8)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(C, 4, 3, padding=1)

    def forward(self, x):
        if x.mean() > 0:
            return self.conv(x)
        return x


class Baked(Branch):
    def forward(self, x):
        return self.conv(x).reshape(int(x.shape[0]), -1, *SHAPE)


class LoopOverFields(Branch):
    def forward(self, x):
        return torch.stack([self.conv(x[i : i + 1])[0] for i in range(x.shape[0])])


class Chance(Branch):
    def forward(self, x):
        return self.conv(x) * random.random()


class Unknown(Branch):
    def forward(self, x):
        return torch.fft.fft2(self.conv(x)).abs()


class Sampling(Branch):
    def forward(self, x):
        flow = torch.zeros(x.shape[0], *SHAPE, 2, dtype=x.dtype)
        return F.grid_sample(x, flow, align_corners=False)


class Factored(Branch):
    def forward(self, x):
        return torch.linalg.qr(self.conv(x))[0]


class Item(Branch):
    def forward(self, x):
        return self.conv(x) / self.conv.weight.norm().item()


class Assigns(Branch):
    def forward(self, x):
        y = self.conv(x)
        y[:, 0] = 0
        return y


class TwoInputs(Branch):
    def forward(self, x, context):
        return self.conv(x) + context


class Pair(Branch):
    def forward(self, x):
        return self.conv(x), x


class Named(Branch):
    def forward(self, x):
        return {"out": self.conv(x)}


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(C, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(x.mean(2).transpose(1, 2))[0]


class ChannelsLast(Branch):
    def forward(self, x):
        return self.conv(x).permute(0, 2, 3, 1)


class Folded(Branch):
    def __init__(self):
        super().__init__()
        self.fold = nn.Fold(SHAPE, 3, padding=1)

    def forward(self, x):
        return self.fold(F.unfold(x, 3, padding=1))


class OneRow(Branch):
    def forward(self, x):
        return self.conv(x).mean((0, 2, 3))


REFUSED = {
    Branch: r"test_tracing_refusals.py:\d+ \(if x.mean\(\) > 0:\) asks for the truth of a tensor",
    Baked: r"step \"reshape.*\" \(test_tracing_refusals.py:\d+ \(return .*reshape\(int.* not the same for 2 and for 3 fields",
    LoopOverFields: r"\(test_tracing_refusals.py:\d+ \(return torch.stack.* not the same for 2 and for 3 fields",
    Chance: r"step \"mul\" \(test_tracing_refusals.py.*depends on chance",
    Unknown: r"step \"fft_fft2.*\" \(test_tracing_refusals.py:\d+ \(return torch.fft.fft2.*fft_fft2 is not among the operations",
    Sampling: r"\(test_tracing_refusals.py:\d+ \(return F.grid_sample.*grid_sample.* is not among the operations",
    Factored: r"linalg_qr is not among the operations",
    Item: r"test_tracing_refusals.py:\d+ \(return self.conv\(x\) / .*item\(\)\).*item is not among the operations",
    Assigns: r"does not support item assignment \(test_tracing_refusals.py:\d+ y\[:, 0\] = 0\)",
    TwoInputs: r"whose forward\(\) takes x, context, expected one batch",
    Pair: r"output of type tuple from Pair, expected class scores \(b, classes\) or maps",
    Named: r"output of type dict from Named",
    Sequence: r"LSTM|lstm",
    ChannelsLast: r"has its pixels elsewhere than a map \(b, classes, \*shape\); permute",
    OneRow: r"output of shape \(4,\) from OneRow for 3 fields, expected \(3, ..\)",
    Folded: r"fold is not among the operations|Fold",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_no_program_can_say_is_refused_by_its_line(kind):
    with pytest.raises(ConfigError, match=REFUSED[kind]):
        convert(kind(), Box.unit(2), SHAPE, in_channels=C)


class AuxiliaryHead(Branch):
    def forward(self, x):
        y = self.conv(x)
        return (y, y.mean((2, 3))) if self.training else y


def test_a_network_that_returns_more_in_training_runs_in_evaluation_mode_only():
    module, images = AuxiliaryHead().double().eval(), images_of(C, SHAPE)
    net = converted(module, images)
    torch.testing.assert_close(on_grid(net, images), module(images))
    with pytest.raises(ConfigError, match=r"in training mode, expected net.eval\(\). In training mode it returns something else"):
        net.train()(images)


def test_a_domain_that_has_no_pixels_is_refused():
    with pytest.raises(ConfigError, match="expected a Box or Torus"):
        convert(Branch(), Ball((0.0, 0.0), 1.0), SHAPE)
