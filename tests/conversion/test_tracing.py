"""Tracing: modules as people write them, in both modes and for any number of fields."""

import copy

import pytest
import torch
import torch.nn.functional as F
from reference_conversion import converted, images_of, on_bare_pixels, on_grid
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from inrbridge.errors import ConfigError

C, SHAPE = 3, (6, 8)


def conv(inputs=C, outputs=4):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class DropPath(nn.Module):
    """Branches of whole fields are dropped in training, written by hand."""

    def __init__(self, keep=0.6):
        super().__init__()
        self.conv, self.keep = conv(C, C), keep

    def forward(self, x):
        y = self.conv(x)
        if self.training:
            y = y * torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(self.keep) / self.keep
        return x + y


class RandomNoise(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv()

    def forward(self, x):
        if self.training:
            x = x + 0.1 * torch.randn(x.shape[0], C, 1, 1, dtype=x.dtype)
        return F.dropout(self.conv(x), 0.5, self.training)


class AlwaysDropout(nn.Module):
    """Monte-Carlo dropout: on in either mode."""

    def __init__(self):
        super().__init__()
        self.conv = conv()

    def forward(self, x):
        return F.dropout(self.conv(x), 0.5)


class Functional(nn.Module):
    """Batch normalization and its statistics by hand, weights as bare parameters."""

    def __init__(self):
        super().__init__()
        self.weight, self.gamma = nn.Parameter(torch.randn(4, C, 3, 3)), nn.Parameter(torch.rand(4) + 0.5)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        x = F.conv2d(x, self.weight, stride=2, padding=1)
        return F.relu(F.batch_norm(x, self.mean, self.var, self.gamma, None, self.training, 0.2), inplace=True).mean((2, 3))


class Shared(nn.Module):
    """One convolution and one activation, called twice; modules in lists and dictionaries."""

    def __init__(self):
        super().__init__()
        self.first, self.relu = conv(), nn.ReLU(inplace=True)
        self.parts = nn.ModuleDict({"deep": nn.ModuleList([conv(4, 4)])})

    def forward(self, x):
        x = self.relu(self.first(x))
        for _ in range(2):
            x = self.relu(self.parts["deep"][0](x)) + x
        return x


class OwnConv(nn.Conv2d):
    """A subclass with a forward of its own: standardized weights."""

    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5), self.bias)


class Sizes(nn.Module):
    """Loops, branches and arithmetic on sizes, assertions, defaults of other arguments."""

    def __init__(self):
        super().__init__()
        self.conv = conv()

    def forward(self, x, mask=None, features=False, *args, scale: float = 2.0):
        b, c, h, w = x.shape
        assert c == C and h > 2, f"got {c} channels"
        y = self.conv(x)
        if mask is not None or features or h % 2:
            y = y + 1
        if w != y.shape[-1]:
            y = F.interpolate(y, size=(h, w))
        for i in range(len(y.shape) - 2):
            y = y * (i + 1)
        return y.reshape(b, -1, h * w).view(b, 4, *x.shape[2:]) * scale / int(h)


class Constants(nn.Module):
    """Tensors that are neither parameters nor buffers, and tensors made in forward()."""

    def __init__(self):
        super().__init__()
        self.conv, self.offset = conv(), torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
        self.register_buffer("std", torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        rows = torch.arange(x.shape[2], dtype=x.dtype, device=x.device) / x.shape[2]
        shift = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(-1, 1, 1).type_as(x)
        return self.conv((x - self.offset.to(x)) / self.std) + rows[None, None, :, None] + shift


class WritesOnInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv()

    def forward(self, x):
        x.sub_(0.5).mul_(2)
        return self.conv(x)


class Recurrent(nn.Module):
    """Squeeze and excitation, a mean that nobody uses, a statistic kept by a layer whose output nobody uses."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(4)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1), nn.Sigmoid())

    def forward(self, x):
        x = self.conv(x)
        x.mean()
        self.norm(x)
        return x * self.gate(x)


class Plain(nn.Module):
    """No batch normalization, no convolution: patches by reshaping."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(C, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x.permute(0, 2, 3, 1))).mean(dim=(1, 2)))


def hooked():
    layer = conv()
    layer.register_forward_hook(lambda module, inputs, output: output * 2 + inputs[0].mean(1, keepdim=True))
    return nn.Sequential(layer, nn.ReLU())


MODULES = {
    "drop_path": DropPath, "noise": RandomNoise, "functional": Functional, "shared": Shared,
    "own_conv": lambda: OwnConv(C, 4, 3, padding=1), "sizes": Sizes, "constants": Constants, "writes": WritesOnInput,
    "unused": Recurrent, "plain": Plain, "hooked": hooked,
    "parametrized_weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(conv()), nn.ReLU()),
    "nested": lambda: nn.Sequential(nn.Sequential(conv(), nn.Sequential(nn.PReLU(4)), nn.GLU(1)), nn.Upsample(scale_factor=2)),
    "one_class": lambda: nn.Sequential(conv(C, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(0)),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    return MODULES[name]().double()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [False, True])
def test_modules_are_traced_as_they_are(name, training):
    module = made(name).train(training)
    images = images_of(C, SHAPE)
    net = converted(module, images)
    assert net.training == training and module.training == training and not net.program.untrainable
    for fields in (1, 2, 4):
        for run in (on_grid, on_bare_pixels) if name != "noise" else (on_grid,):  # elsewhere dropout draws in another order
            some, twin, own = images_of(C, SHAPE, fields), copy.deepcopy(module), copy.deepcopy(net)
            torch.manual_seed(1)
            wanted = twin(some.clone())
            torch.manual_seed(1)
            given = some.clone()
            output = run(own, given)
            torch.testing.assert_close(output.reshape(wanted.shape), wanted, rtol=0, atol=1e-9)
            assert torch.equal(given, some)
            for buffer, value in own.network.named_buffers():
                if buffer in dict(twin.named_buffers()):
                    torch.testing.assert_close(value, twin.get_buffer(buffer), rtol=0, atol=1e-9)


def test_only_what_differs_between_the_modes_is_kept_twice():
    assert converted(made("drop_path"), images_of(C, SHAPE)).program.training_steps is not None
    program = converted(nn.Sequential(conv(), nn.Dropout(0.5)).double(), images_of(C, SHAPE)).program
    assert program.training_steps is None
    program = converted(made("functional"), images_of(C, SHAPE)).program
    assert program.training_steps is None and any({"training": True} in (step.kwargs or {}).values() for step in program.steps)


def test_numbers_that_are_the_same_for_any_number_of_fields_are_no_steps():
    program = converted(made("sizes"), images_of(C, SHAPE)).program
    assert [step.target for step in program.steps if step.target in ("mod", "operator.getitem")] == ["operator.getitem"]


def test_dropout_in_either_mode_stays_on():
    torch.manual_seed(0)
    net = converted(AlwaysDropout().double(), images_of(C, SHAPE)).eval()
    assert 0.3 < (on_grid(net, images_of(C, SHAPE)) == 0).double().mean() < 0.7


def test_old_style_weight_norms_are_refused_or_right():
    images = images_of(C, SHAPE)
    for norm in (weight_norm, spectral_norm):
        module = nn.Sequential(norm(conv()), nn.ReLU()).double().eval()
        with torch.no_grad():
            wanted = module(images)
        try:
            net = converted(module, images)
        except ConfigError as error:
            assert "Sequential" in str(error)
        else:
            torch.testing.assert_close(on_grid(net.eval(), images), wanted)


def test_wrapped_functions_are_traced_through():
    module, images = Wrapped().double().eval(), images_of(C, SHAPE)
    torch.testing.assert_close(on_grid(converted(module, images), images), module(images))


@torch.fx.wrap
def _doubled(x, times):
    return x * times if times > 1 else x


class Wrapped(DropPath):
    def forward(self, x):
        return _doubled(self.conv(x), 2)


def test_conversion_leaves_the_random_numbers_of_torch_alone():
    torch.manual_seed(7)
    converted(made("noise"), images_of(C, SHAPE))
    made_after = torch.get_rng_state()
    torch.manual_seed(7)
    made("noise")
    assert torch.equal(torch.get_rng_state(), made_after)
