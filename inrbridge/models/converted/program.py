"""Floor 6: a traced network as data: steps that name torch's operations, and the weights under their first names.

A program has two meanings. On the pixel grid it was traced on, each step is torch's own operation on the tensors of the
discrete network, whose results it repeats (Wang & Golland 2023, property 4). On other points a step follows the rule for
points of its operation (`rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from inrbridge.errors import CannotOpen, ConfigError
from inrbridge.models.converted.arguments import decode, dtype_of, references
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
                options = {key: decode(value, {}, network) for key, value in spec["options"].items()}
                parent.add_module(name, build_module(spec["name"], options))
            for path, spec in self.tensors.items():
                parent, name = _parent(network, path)
                value = torch.zeros(spec["shape"], dtype=dtype_of(spec["dtype"]))
                if spec["trained"]:
                    parent.register_parameter(name, nn.Parameter(value))
                else:
                    parent.register_buffer(name, value)
        except (TypeError, KeyError, ValueError, AttributeError, AssertionError, ArithmeticError) as error:
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
        for step, ended in self._training_plan if network.training and self.training_steps is not None else self._plan:
            if step.kind == "input":
                results[step.name] = value
            elif step.kind == "output":
                return decode(step.args[0], results, network)
            elif step.kind == "tensor":
                results[step.name] = _attribute(network, step.target)
            else:
                args = [decode(arg, results, network) for arg in step.args]
                kwargs = {key: decode(arg, results, network) for key, arg in step.kwargs.items()} if step.kwargs else {}
                results[step.name] = apply(step, self.operation(step, network), args, kwargs)
            for name in ended:
                del results[name]

    def operation(self, step: Step, network: nn.Module) -> Callable:
        """Return what a step calls."""
        if step.kind == "module":
            return _attribute(network, step.target)
        if step.kind == "function":
            return FUNCTIONS[step.target]
        if step.target == "shape":
            return lambda tensor: tensor.shape
        return lambda tensor, *args, **kwargs: getattr(tensor, step.target)(*args, **kwargs)

    @cached_property
    def _plan(self) -> list[tuple[Step, list[str]]]:
        return _with_ends(self.steps)

    @cached_property
    def _training_plan(self) -> list[tuple[Step, list[str]]]:
        return _with_ends(self.training_steps)


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


def _with_ends(steps: Sequence[Step]) -> list[tuple[Step, list[str]]]:
    """Steps, and with each the results that nobody asks for afterwards, so that their memory is free again."""
    last: dict[str, int] = {}
    for place, step in enumerate(steps):
        last |= {name: place for name in references([*step.args, *(step.kwargs or {}).values()])}
        last.setdefault(step.name, place)
    ends: list[list[str]] = [[] for _ in steps]
    for name, place in last.items():
        ends[place].append(name)
    return list(zip(steps, ends, strict=True))


def _parent(network: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds the last name of a path; those on the way are made."""
    *way, name = path.split(".")
    for part in way:
        if part not in network._modules:
            network.add_module(part, nn.Module())
        network = network._modules[part]
    return network, name


def _attribute(network: nn.Module, path: str):
    for part in path.split("."):
        network = getattr(network, part)
    return network
