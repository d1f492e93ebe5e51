"""Programs come from files: only words of the vocabulary are accepted, in a sound structure, and nothing else is run."""

import copy
import json
import time

import pytest
import torch
from reference_conversion import converted, images_of
from torch import nn

from inrbridge import Box
from inrbridge.errors import CannotOpen
from inrbridge.models import ConvertedNet
from inrbridge.models.converted import Program
from inrbridge.models.converted.vocabulary import FUNCTIONS, METHODS, MODULE_OPTIONS, function_name


class Small(nn.Module):
    """Every kind of step, and a branch on the mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x):
        x = torch.relu(self.conv(x) * self.scale).mean((2, 3))
        return self.head(x.view(x.shape[0], -1) + 1) if self.training else self.head(x.view(x.shape[0], -1))


@pytest.fixture(scope="module")
def config() -> dict:
    net = converted(Small(), images_of(2, (4, 4)).float())
    return json.loads(json.dumps(net.program.to_config()))


def test_a_program_is_json_and_comes_back_equal(config):
    assert json.loads(json.dumps(Program.from_config(config).to_config())) == config
    assert {step["kind"] for step in config["steps"]} == {"input", "output", "tensor", "module", "function", "method"}
    assert "training_steps" in config


def _step(config, kind):
    return next(step for step in config["steps"] if step["kind"] == kind)


def _target(kind, target):
    return lambda config: _step(config, kind).update(target=target)


def _argument(value):
    return lambda config: _step(config, "method")["args"].append(value)


def _module(**spec):
    return lambda config: config["modules"]["conv"].update(spec)


def _option(**options):
    return lambda config: config["modules"]["conv"]["options"].update(options)


UNSOUND = {
    "function": _target("function", "os.system"),
    "eval": _target("function", "eval"),
    "load": _target("function", "torch.load"),
    "method": _target("method", "__class__"),
    "apply": _target("method", "apply_"),
    "module": _target("module", "forward.__globals__"),
    "tensor": _target("tensor", "scale.__class__"),
    "kind": lambda config: _step(config, "method").update(kind="import"),
    "class": _module(name="Module"),
    "lazy": _module(name="LazyConv2d"),
    "private": _module(name="__builtins__"),
    "option": _option(device="cuda:7"),
    "hook": _option(forward=1),
    "option_value": _option(padding={"tuple": [{"import": "os"}]}),
    "option_kind": _option(stride="many"),
    "option_missing": lambda config: config["modules"]["conv"]["options"].pop("in_channels"),
    "argument": _argument({"code": "1"}),
    "two_keys": _argument({"step": "input_1", "tuple": []}),
    "dtype": _argument({"dtype": "load"}),
    "float": _argument({"float": "__import__"}),
    "slice": _argument({"slice": [0]}),
    "forward_reference": _argument({"step": "output"}),
    "twice": lambda config: config["steps"].insert(1, config["steps"][1]),
    "no_output": lambda config: config["steps"].pop(),
    "two_inputs": lambda config: config["steps"].insert(0, {"name": "more", "kind": "input"}),
    "unknown_field": lambda config: config["steps"][1].update(run="now"),
    "no_name": lambda config: config["steps"][1].update(name=3),
    "no_steps": lambda config: config.update(steps=[]),
    "steps_of_text": lambda config: config.update(steps="relu"),
    "no_modules": lambda config: config.pop("modules"),
    "tensor_dtype": lambda config: config["tensors"]["scale"].update(dtype="Tensor"),
    "tensor_shape": lambda config: config["tensors"]["scale"].update(shape=[-1]),
    "training_steps": lambda config: config["training_steps"][2].update(target="os.system"),
    "path_over_path": lambda config: config["modules"].update({"conv.weight.x": config["modules"]["conv"]}),
    "path_of_torch": lambda config: config["modules"].update({"forward": config["modules"]["conv"]}),
    "empty_path": lambda config: config["modules"].update({"a..b": config["modules"]["conv"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_program_cannot_be_opened(name, config):
    config = copy.deepcopy(config)
    UNSOUND[name](config)
    with pytest.raises(CannotOpen, match=r"(program|Cannot build .*) of a converted net.*(convert the network again|install)|"
                                         r"Cannot build .* of a converted net"):  # fmt: skip
        ConvertedNet(Box.unit(2), 2, 2, program=config, resolution=4)


def test_huge_layers_cost_nothing_before_their_weights_are_compared(config):
    config = copy.deepcopy(config)
    _option(in_channels=10**6, out_channels=10**6)(config)
    config["tensors"]["scale"]["shape"] = [10**6, 10**6]
    start = time.process_time()
    with torch.device("meta"):  # as models are opened
        net = ConvertedNet(Box.unit(2), 2, 2, program=config, resolution=4)
    assert time.process_time() - start < 2
    assert all(weight.is_meta for weight in net.parameters())


def test_the_vocabulary_is_torchs_own():
    """Each word is callable, and finds itself again, by this or by its first name."""
    for word, function in FUNCTIONS.items():
        assert callable(function)
        assert FUNCTIONS[function_name(function)] is function, word
    assert all(callable(getattr(torch.Tensor, name, None)) or name == "shape" for name in METHODS)
    assert all(issubclass(getattr(nn, name), nn.Module) for name in MODULE_OPTIONS)
    assert not {"apply_", "map_", "__class__", "numpy", "tolist", "item", "data_ptr", "share_memory_"} & METHODS
