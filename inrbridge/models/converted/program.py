"""Floor 6: a traced network as data: steps that name torch's operations, and the weights under their first names.

A program has two meanings. On the pixel grid it was traced on, each step is torch's own operation on the tensors of the
discrete network, whose results it repeats (Wang & Golland 2023, property 4). On other points a step follows the rule for
points of its operation (`rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inrbridge.errors import CannotOpen, ConfigError
from inrbridge.models.converted.arguments import decoder, dtype_of, references
from inrbridge.models.converted.vocabulary import FUNCTIONS, METHODS, build_module, check_options


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
    """Steps in their order, and what the network consists of.

    Args:
        modules: {path: {"name", "options"}}.
        tensors: {path: {"shape", "dtype", "trained"}}.
        training_steps: what the network does in training mode, if that is more than other arguments; None: the same.
        untrainable: why it cannot run in training mode; "": it can.
    """

    steps: tuple[Step, ...]
    modules: dict
    tensors: dict
    training_steps: tuple[Step, ...] | None = None
    untrainable: str = ""

    def to_config(self) -> dict:
        """Return JSON values."""
        config = {"steps": _to_config(self.steps), "modules": self.modules, "tensors": self.tensors}
        if self.training_steps is not None:
            config["training_steps"] = _to_config(self.training_steps)
        return config | ({"untrainable": self.untrainable} if self.untrainable else {})

    @classmethod
    def from_config(cls, config: dict) -> Program:
        """Read what `to_config` gave, whoever wrote it: only words of the vocabulary are accepted.

        Raises:
            CannotOpen: it names anything else, or is no program.
        """
        try:
            trained = config.get("training_steps")
            program = cls(
                _from_config(config["steps"]),
                dict(config["modules"]),
                dict(config["tensors"]),
                None if trained is None else _from_config(trained),
                str(config.get("untrainable", "")),
            )
            for steps in (program.steps, program.training_steps or program.steps):
                program._check(steps)
            for spec in program.modules.values():
                check_options(spec["name"], spec["options"])
        except CannotOpen:
            raise
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise CannotOpen(f"The program of a converted net is damaged ({error}); convert the network again.") from error
        return program

    def _check(self, steps: Sequence[Step]) -> None:
        known = {"function": FUNCTIONS, "method": METHODS, "module": self.modules, "tensor": self.tensors}
        done: set[str] = set()
        for step in steps:
            if step.kind not in (*known, "input", "output") or step.target not in known.get(step.kind, ("",)):
                raise CannotOpen(
                    f'The program of a converted net names the {step.kind} "{step.target}", which is not in the vocabulary of '
                    "this inrbridge; install the version that wrote it, or convert the network again."
                )
            missing = set(references([*step.args, *(step.kwargs or {}).values()])) - done
            if missing or step.name in done:
                raise ValueError(f'step "{step.name}" comes twice or before {sorted(missing)}')
            done.add(step.name)
        kinds = [step.kind for step in steps]
        if kinds.count("input") != 1 or kinds[-1] != "output" or kinds.count("output") != 1 or len(steps[-1].args) != 1:
            raise ValueError("expected one input, and one output at the end")

    def build(self) -> nn.Module:
        """Return the network's modules and tensors under their names, with weights that do not matter.

        Raises:
            CannotOpen: torch does not make such modules.
        """
        network = nn.Module()
        try:
            for path, spec in self.modules.items():
                parent, name = _parent(network, path)
                options = {key: decoder(value)({}, network) for key, value in spec["options"].items()}
                parent.add_module(name, build_module(spec["name"], options))
            for path, spec in self.tensors.items():
                parent, name = _parent(network, path)
                value = torch.zeros(spec["shape"], dtype=dtype_of(spec["dtype"]))
                if spec["trained"]:
                    parent.register_parameter(name, nn.Parameter(value))
                else:
                    parent.register_buffer(name, value)
        except NotImplementedError:  # of a device on which nothing is computed, on which shapes are looked at
            raise
        except (TypeError, LookupError, ValueError, AttributeError, AssertionError, ArithmeticError, RuntimeError) as error:
            raise CannotOpen(f"Cannot build {path} of a converted net ({error}); convert the network again.") from error
        return network

    def run(self, network: nn.Module, value, apply: Callable):
        """Run the steps on an input.

        Args:
            network: of `build`; its mode decides which steps they are.
            value: the input.
            apply: (step, operation, args, kwargs) -> result.

        Raises:
            ConfigError: the network is in training mode, and cannot be.
        """
        if network.training and self.untrainable:
            raise ConfigError(f"Got this converted net in training mode, expected net.eval(). {self.untrainable}")
        results: dict[str, object] = {}
        for step, operation, args, kwargs, ended in self._plan(network.training):
            if step.kind == "input":
                results[step.name] = value
            elif step.kind == "output":
                return args[0](results, network)
            elif step.kind == "tensor":
                results[step.name] = operation(network)
            else:
                given = [part(results, network) for part in args]
                named = {key: part(results, network) for key, part in kwargs}
                results[step.name] = apply(step, operation(network), given, named)
            for name in ended:
                del results[name]

    def operation(self, step: Step, network: nn.Module) -> Callable:
        """Return what a step calls."""
        return _finder(step)(network)

    def _plan(self, training: bool) -> list[_Planned]:
        return self._plans[training and self.training_steps is not None]

    @cached_property
    def _plans(self) -> tuple[list[_Planned], list[_Planned]]:
        return _planned(self.steps), _planned(self.training_steps or ())

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_plans"}  # its functions cannot be copied


def run_on_grid(program: Program, network: nn.Module, image: Tensor):
    """Run the discrete network itself: image (b, c, *resolution) -> its output."""
    return program.run(network, image, lambda step, operation, args, kwargs: operation(*args, **kwargs))


def _to_config(steps: Sequence[Step]) -> list[dict]:
    return [{key: value for key, value in asdict(step).items() if value not in ("", (), None)} for step in steps]


def _from_config(steps: list) -> tuple[Step, ...]:
    read = tuple(Step(**{**step, "args": tuple(step.get("args", ()))}) for step in steps)
    for step in read:
        if not all(isinstance(part, str) for part in (step.name, step.kind, step.target, step.line)):
            raise ValueError(f"{step} has a name that is no text")
    return read


class _Planned(NamedTuple):
    """A step as it is run: how to find what it calls, its arguments, and the results that nobody asks for afterwards."""

    step: Step
    operation: Callable[[nn.Module], object]
    args: list[Callable]
    kwargs: list[tuple[str, Callable]]
    ended: list[str]


def _planned(steps: Sequence[Step]) -> list[_Planned]:
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        last |= {name: place for name in references([*step.args, *(step.kwargs or {}).values()])}
        last.setdefault(step.name, place)
    ends: list[list[str]] = [[] for _ in steps]
    for name, place in last.items():
        ends[place].append(name)
    return [
        _Planned(
            step, _finder(step), [*map(decoder, step.args)], [(k, decoder(v)) for k, v in (step.kwargs or {}).items()], ended
        )
        for step, ended in zip(steps, ends, strict=True)
    ]


def _finder(step: Step) -> Callable[[nn.Module], object]:
    """Return what finds that which a step calls, or the tensor that it stands for."""
    *way, last = step.target.split(".")
    if step.kind in ("module", "tensor"):

        def find(network: nn.Module):
            for part in way:
                network = network._modules[part]
            return network._modules[last] if step.kind == "module" else getattr(network, last)

        return find
    operation = FUNCTIONS.get(step.target) if step.kind == "function" else _method(step.target)
    return lambda network: operation


def _method(name: str) -> Callable:
    if name == "shape":  # an attribute, as a method
        return lambda tensor: tensor.shape
    return lambda tensor, *args, **kwargs: getattr(tensor, name)(*args, **kwargs)


def _parent(network: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds the last name of a path; those on the way are made."""
    *way, name = path.split(".")
    for part in way:
        if part not in network._modules:
            network.add_module(part, nn.Module())
        network = network._modules[part]
    return network, name
