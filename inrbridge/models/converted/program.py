"""Floor 6: a traced network as data: steps that name torch's operations, and the weights under their first names.

A program has two meanings. On the pixel grid it was traced on, each step is torch's own operation on the tensors of the
discrete network, whose results it repeats (Wang & Golland 2023, property 4). On other points a step follows the rule for
points of its operation (`rules`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from inrbridge.errors import CannotOpen
from inrbridge.models.converted.vocabulary import FUNCTIONS, METHODS, build_module


@dataclass(frozen=True)
class Step:
    """One operation: `result = target(*args, **kwargs)`, where {"step": name} in the arguments is the result of another.

    Args:
        kind: "input", "output", "tensor" (a weight or constant), "module", "function" or "method".
        target: a name: of the weight or module in the network, of the function or method in the vocabulary.
        line: where the discrete network does this.
    """

    name: str
    kind: str
    target: str = ""
    args: tuple = ()
    kwargs: dict | None = None
    line: str = ""


@dataclass(frozen=True)
class Program:
    """Steps in their order, and what the network consists of: {path: {"name", "options"}} and {path: {"shape", ..}}."""

    steps: tuple[Step, ...]
    modules: dict
    tensors: dict

    def to_config(self) -> dict:
        """Return JSON values."""
        steps = [{key: value for key, value in asdict(step).items() if value not in ("", (), None)} for step in self.steps]
        return {"steps": steps, "modules": self.modules, "tensors": self.tensors}

    @classmethod
    def from_config(cls, config: dict) -> Program:
        """Read what `to_config` gave, whoever wrote it: only words of the vocabulary are accepted.

        Raises:
            CannotOpen: it names anything else.
        """
        try:
            steps = tuple(Step(**{**step, "args": tuple(step.get("args", ()))}) for step in config["steps"])
            program = cls(steps, dict(config["modules"]), dict(config["tensors"]))
        except (TypeError, KeyError, ValueError) as error:
            raise CannotOpen(f"The program of a converted net is damaged ({error}); convert the network again.") from error
        for step in steps:
            known = {"function": FUNCTIONS, "method": METHODS, "module": program.modules, "tensor": program.tensors}
            if step.kind not in (*known, "input", "output") or step.target not in known.get(step.kind, (step.target,)):
                raise CannotOpen(
                    f'The program of a converted net names the {step.kind} "{step.target}", which is not in the vocabulary of '
                    "this inrbridge; install the version that wrote it, or convert the network again."
                )
        return program

    def build(self) -> nn.Module:
        """Return the network's modules and tensors under their names, with weights that do not matter."""
        network = nn.Module()
        for path, spec in self.modules.items():
            _place(network, path, build_module(spec["name"], {k: decode(v, {}, network) for k, v in spec["options"].items()}))
        for path, spec in self.tensors.items():
            parent, name = _parent(network, path)
            value = torch.zeros(spec["shape"], dtype=getattr(torch, spec["dtype"]))
            if spec["trained"]:
                parent.register_parameter(name, nn.Parameter(value))
            else:
                parent.register_buffer(name, value)
        return network

    def run(self, network: nn.Module, value, apply: Callable):
        """Run the steps on an input.

        Args:
            network: of `build`.
            value: the input.
            apply: (step, operation, args, kwargs) -> result.
        """
        results: dict[str, object] = {}
        last = self._last_uses()
        for place, step in enumerate(self.steps):
            if step.kind == "input":
                results[step.name] = value
            elif step.kind == "output":
                return decode(step.args[0], results, network)
            elif step.kind == "tensor":
                results[step.name] = _attribute(network, step.target)
            else:
                args = [decode(arg, results, network) for arg in step.args]
                kwargs = {key: decode(arg, results, network) for key, arg in (step.kwargs or {}).items()}
                results[step.name] = apply(step, self.operation(step, network), args, kwargs)
            for name in last.get(place, ()):
                del results[name]
        return None

    def operation(self, step: Step, network: nn.Module) -> Callable:
        """Return what a step calls."""
        if step.kind == "module":
            return _attribute(network, step.target)
        if step.kind == "function":
            return FUNCTIONS[step.target]
        if step.target == "shape":
            return lambda tensor: tensor.shape
        return lambda tensor, *args, **kwargs: getattr(tensor, step.target)(*args, **kwargs)

    def _last_uses(self) -> dict[int, list[str]]:
        """For each step the results that nobody asks for afterwards, so that their memory is free again."""
        last: dict[str, int] = {}
        for place, step in enumerate(self.steps):
            for name in _references([step.args, list((step.kwargs or {}).values())]):
                last[name] = place
            last.setdefault(step.name, place)
        ends: dict[int, list[str]] = {}
        for name, place in last.items():
            ends.setdefault(place, []).append(name)
        return ends


def run_on_grid(program: Program, network: nn.Module, image: Tensor):
    """Run the discrete network itself: image (b, c, *resolution) -> its output."""
    return program.run(network, image, lambda step, operation, args, kwargs: operation(*args, **kwargs))


def encode(value, reference: Callable[[object], dict | None]):
    """Turn an argument of a traced call into JSON values; `reference` recognizes the results of other steps."""
    found = reference(value)
    if found is not None:
        return found
    if isinstance(value, slice):
        return {"slice": [encode(part, reference) for part in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": True}
    if isinstance(value, tuple):  # torch.Size too
        return {"tuple": [encode(part, reference) for part in value]}
    if isinstance(value, list):
        return [encode(part, reference) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {"dict": {key: encode(part, reference) for key, part in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an argument of type {type(value).__name__}")


def decode(value, results: dict, network: nn.Module):
    """Turn what `encode` gave back into an argument, given the results of the steps so far."""
    if isinstance(value, list):
        return [decode(part, results, network) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "step":
        return results[content]
    if kind == "tuple":
        return tuple(decode(part, results, network) for part in content)
    if kind == "slice":
        return slice(*(decode(part, results, network) for part in content))
    if kind == "dict":
        return {key: decode(part, results, network) for key, part in content.items()}
    if kind == "training":
        return network.training
    if kind == "device":
        return next(network.parameters()).device
    return {"ellipsis": lambda _: Ellipsis, "dtype": lambda name: getattr(torch, name), "float": float}[kind](content)


def _references(value) -> list[str]:
    if isinstance(value, dict):
        return [value["step"]] if set(value) == {"step"} else [name for part in value.values() for name in _references(part)]
    return [name for part in value for name in _references(part)] if isinstance(value, list | tuple) else []


def _parent(network: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds the last name of a path; those on the way are made."""
    *way, name = path.split(".")
    for part in way:
        if part not in network._modules:
            network.add_module(part, nn.Module())
        network = network._modules[part]
    return network, name


def _place(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, name = _parent(network, path)
    parent.add_module(name, module)


def _attribute(network: nn.Module, path: str):
    for part in path.split("."):
        network = getattr(network, part)
    return network


def used_modules(steps: Sequence[Step]) -> set[str]:
    """Return the paths of the modules that steps call."""
    return {step.target for step in steps if step.kind == "module"}
