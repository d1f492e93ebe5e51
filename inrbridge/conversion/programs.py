"""Floor 7: write down a traced module as a program: recorded with two numbers of fields and in both modes, so that what depends
on either is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from inrbridge.conversion.tracing import Recording, attribute, record
from inrbridge.errors import ConfigError, did_you_mean
from inrbridge.models.converted import Program, Step, encode
from inrbridge.models.converted.vocabulary import FUNCTIONS, METHODS, function_name, module_name, module_options

CONSTANT = "_tensor_constant"  # how torch.fx calls a tensor that is made in forward()
_SYNONYMS = {"axis": "dim", "keepdims": "keepdim"}  # of arguments
_OF_NO_ACCOUNT = ("memory_format",)  # how values lie in memory


class Traced(NamedTuple):
    """A program, the weights that its names refer to, and the output on the example."""

    program: Program
    weights: dict[str, Tensor]
    output: object


def trace(module: nn.Module, example: Tensor) -> Traced:
    """Write down what a module does.

    Args:
        module: it is not changed.
        example: a batch of at least two inputs (b, c, *shape).

    Raises:
        ConfigError: it cannot be recorded, or does what no program can say; names the operation, its line and why.
    """
    recording = record(module, example)
    steps, training, why = _lasting_steps(module, example, recording), None, ""
    parts = _parts(steps, recording.root)
    try:
        trained = record(module, example, True)
        training = _lasting_steps(module, example, trained, True)
        both = _for_both_modes(steps, training)
        if both is None:
            _require_same_output(recording.output, trained.output)
            parts = _joined(parts, _parts(training, trained.root))
        else:
            steps, training = both, None
    except ConfigError as error:
        training, why = None, str(error)
    return Traced(Program(steps, parts.modules, parts.tensors, training, why), parts.weights, recording.output)


def _lasting_steps(module: nn.Module, example: Tensor, recording: Recording, training: bool = False) -> tuple[Step, ...]:
    """The steps, which must be the same for any number of fields. Numbers that are the same too are no steps but constants."""
    more = torch.cat([example, example[:1]])
    other = record(module, more, training)
    pairs = list(zip(recording.graph.nodes, other.graph.nodes, strict=False))
    for node, twin in pairs:
        step, same = _step(node, recording.root, example, {}), _step(twin, other.root, example, {})
        if step != same or (step.kind == "tensor" and _is_other_constant(step.target, recording.root, other.root)):
            raise ConfigError(
                f'Cannot convert the step "{node.name}" ({node.meta.get("line", "")}): it is not the same for {len(example)} and '
                f"for {len(more)} fields, or depends on chance; expected operations that are the same for any number of fields. "
                "Use x.shape[0] or -1 as a size, not a number that Python computed from it."
            )
    if isinstance(other.output, Tensor) and other.output.shape[:1] != (len(more),):
        raise ConfigError(
            f"Got an output of shape {tuple(other.output.shape)} from {type(module).__name__} for {len(more)} fields, expected "
            f"({len(more)}, ..): a row or a map for each field."
        )
    known = [(node, node.meta.get("value"), twin.meta.get("value")) for node, twin in pairs]
    constants = {node: value for node, value, again in known if _is_number(value) and value == again}
    needed: set[fx.Node] = set()
    for node in reversed(recording.graph.nodes):  # those before the last one that needs them
        if node not in constants and (node.op == "placeholder" or node in needed or not node.users):
            needed.update((node, *node.all_input_nodes))
    kept = [node for node in recording.graph.nodes if node in needed and node not in constants]
    return tuple(_step(node, recording.root, example, constants) for node in kept)


def _is_number(value) -> bool:
    if isinstance(value, tuple):  # torch.Size too
        return all(map(_is_number, value))
    return isinstance(value, bool | int | float)


def _is_other_constant(path: str, root: nn.Module, other: nn.Module) -> bool:
    """Whether a tensor was made in forward(), and not the same twice."""
    return path.startswith(CONSTANT) and not torch.equal(attribute(root, path), attribute(other, path))


class _Parts(NamedTuple):
    """What steps refer to: descriptions for a program, and weights by name."""

    modules: dict
    tensors: dict
    weights: dict[str, Tensor]


def _parts(steps: tuple[Step, ...], root: nn.Module) -> _Parts:
    modules, tensors, weights = {}, {}, {}
    for step in steps:
        if step.kind == "module":
            module = root.get_submodule(step.target)
            options = {name: encode(value, lambda _: None) for name, value in module_options(module).items()}
            modules[step.target] = {"name": module_name(module), "options": options}
            weights |= {f"{step.target}.{name}": value for name, value in module.state_dict().items()}
        elif step.kind == "tensor":
            value = attribute(root, step.target)
            tensors[step.target] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."),
                                    "trained": isinstance(value, nn.Parameter)}  # fmt: skip
            weights[step.target] = value.detach()
    return _Parts(modules, tensors, weights)


def _joined(parts: _Parts, others: _Parts) -> _Parts:
    """What the steps of either mode refer to; the weights are those of the first."""
    for name in parts.tensors.keys() & others.tensors.keys():
        if name.startswith(CONSTANT) and not torch.equal(parts.weights[name], others.weights[name]):
            raise ConfigError(f"It makes other constants in training mode ({name}); register them as buffers.")
    return _Parts(others.modules | parts.modules, others.tensors | parts.tensors, others.weights | parts.weights)


def _require_same_output(evaluated, trained) -> None:
    if not isinstance(evaluated, Tensor) or not isinstance(trained, Tensor) or evaluated.shape != trained.shape:
        raise ConfigError("In training mode it returns something else; wrap it in a module that always returns the one tensor.")


def _for_both_modes(steps: tuple[Step, ...], training: tuple[Step, ...]) -> tuple[Step, ...] | None:
    """One list of steps for both modes, where they differ by arguments like `training=self.training` alone."""
    if len(steps) != len(training):
        return None
    try:
        return tuple(
            Step(a.name, a.kind, a.target, _merged(a.args, b.args), _merged(a.kwargs, b.kwargs), a.line)
            for a, b in zip(steps, training, strict=True)
            if _are_alike((a.name, a.kind, a.target), (b.name, b.kind, b.target))
        )
    except _DifferentError:
        return None


class _DifferentError(Exception):
    """Two modes do different things."""


def _are_alike(a, b) -> bool:
    if a != b:
        raise _DifferentError
    return True


def _merged(a, b):
    if isinstance(a, bool) and isinstance(b, bool) and a != b:
        return {"training": b}
    if type(a) is type(b) and isinstance(a, list | tuple) and len(a) == len(b):
        return type(a)(map(_merged, a, b))
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return {key: _merged(a[key], b[key]) for key in a}
    _are_alike((type(a), a), (type(b), b))
    return a


def _step(node: fx.Node, root: nn.Module, example: Tensor, constants: dict[fx.Node, object]) -> Step:
    line = node.meta.get("line", "")
    if node.op == "placeholder":
        return Step(node.name, "input")
    if node.op == "get_attr":
        return Step(node.name, "tensor", node.target, line=line)
    kind, target = {"call_module": ("module", node.target), "call_method": ("method", node.target), "output": ("output", "")}.get(
        node.op, ("function", None)
    )
    if kind == "function":
        target = function_name(node.target)
    if (kind == "function" and target is None) or (kind == "method" and target not in METHODS):
        name = getattr(node.target, "__name__", str(node.target))
        words = [word.rpartition(".")[2] for word in FUNCTIONS] + sorted(METHODS)
        raise ConfigError(
            f'Cannot convert the step "{node.name}" ({line}): {name} is not among the operations that have a meaning on points '
            f"or on the grid of a level.{did_you_mean(name, words)} Replace it by operations of torch.nn, or apply it outside of "
            "the network."
        )

    def known(value) -> dict | None:
        if isinstance(value, fx.Node):
            return {"step": value.name} if value not in constants else encode(constants[value], known)
        return {"dtype": "own"} if isinstance(value, torch.dtype) and value == example.dtype else None

    given = {_SYNONYMS.get(key, key): value for key, value in node.kwargs.items() if key not in _OF_NO_ACCOUNT}
    if given.get("out", 0) is None:
        del given["out"]
    try:
        args, kwargs = tuple(encode(part, known) for part in node.args), {key: encode(part, known) for key, part in given.items()}
    except TypeError as error:
        raise ConfigError(
            f'Cannot convert the step "{node.name}" ({line}): it has {error}; expected tensors and numbers.'
        ) from None
    return Step(node.name, kind, target, args, kwargs or None, line)
