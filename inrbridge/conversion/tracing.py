"""Floor 7: trace a torch module into a program, on an example, so that what depends on shapes is known.

`torch.fx` records the operations. Each is carried out on the example at once: a branch on a size or a loop over one has an
answer, a branch on the values of pixels has none and is refused with its line.
"""

from __future__ import annotations

import copy
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from inrbridge.errors import ConfigError, did_you_mean
from inrbridge.models.converted import Program, Step, encode
from inrbridge.models.converted.vocabulary import DROPOUTS, FUNCTIONS, METHODS, function_name, module_name, module_options

_OURS = str(Path(__file__).parent)
_TORCH = str(Path(torch.__file__).parent)


class KnownProxy(fx.Proxy):
    """A proxy that knows its value on the example: numbers among them decide branches and loops."""

    @property
    def value(self):
        return self.node.meta["value"]

    def _number(self, what: str):
        if isinstance(self.value, Tensor):
            raise ConfigError(
                f"Cannot convert: {self.tracer.line()} asks for {what} of a tensor, and so depends on the values of pixels; "
                "expected a network whose operations are the same for all inputs. Take that decision out of forward()."
            )
        return self.value

    def __bool__(self):
        return bool(self._number("the truth"))

    def __int__(self):
        return int(self._number("the number"))

    def __float__(self):
        return float(self._number("the number"))

    def __index__(self):
        return int(self._number("the number"))

    def __len__(self):
        return len(self.value)

    def __iter__(self) -> Iterator:
        return iter([self[i] for i in range(len(self.value))])

    def __contains__(self, item) -> bool:
        return item in self.value

    def __getattr__(self, name: str):
        value = self.value
        if isinstance(value, Tensor):
            if name == "shape":
                return self.tracer.create_proxy("call_method", "shape", (self,), {})
            if name in ("ndim", "dtype", "device", "is_cuda", "requires_grad", "layout", "itemsize"):
                return getattr(value, name)
            if name in ("T", "mT"):
                return self.transpose(-2, -1)
        return super().__getattr__(name)


class _Tracer(fx.Tracer):
    def __init__(self, root: nn.Module, example: Tensor):
        super().__init__()
        self.proxy_buffer_attributes = True
        self.example = example
        self._is_carrying_out = False  # torch.fx replaces calls and attributes of all modules while it traces

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return module_name(module) is not None

    def proxy(self, node: fx.Node) -> KnownProxy:
        return KnownProxy(node, self)

    def iter(self, proxy):
        return iter(proxy)

    def to_bool(self, proxy):
        return bool(proxy)

    def create_proxy(self, kind, target, args, kwargs, name=None, type_expr=None, proxy_factory_fn=None):
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        node = proxy.node
        node.meta["line"] = self.line()
        node.meta["value"] = self._carry_out(node)
        return proxy

    def call_module(self, module, forward, args, kwargs):
        return forward(*args, **kwargs) if self._is_carrying_out else super().call_module(module, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return attr_val if self._is_carrying_out else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _carry_out(self, node: fx.Node):
        self._is_carrying_out = True
        try:
            return self._result(node)
        finally:
            self._is_carrying_out = False

    def _result(self, node: fx.Node):
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["value"])
        if node.op == "placeholder":
            return self.example
        if node.op == "get_attr":
            return _attribute(self.root, node.target)
        if node.op == "call_module":
            return self.root.get_submodule(node.target)(*args, **kwargs)
        if node.op == "call_method":
            return args[0].shape if node.target == "shape" else getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs) if node.op == "call_function" else args[0]

    def line(self) -> str:
        """The innermost line of the network's own code that is being run."""
        frame = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith((_OURS, _TORCH, "<")) and "/contextlib.py" not in file:
                text = linecache.getline(file, frame.f_lineno).strip()
                return f"{Path(file).name}:{frame.f_lineno}" + (f" ({text})" if text else "")
            frame = frame.f_back
        return "an unknown line"


def trace(module: nn.Module, example: Tensor) -> tuple[Program, nn.Module, object]:
    """Record what a module does.

    Args:
        module: it is not changed.
        example: a batch of inputs (b, c, *shape).

    Returns:
        The program, the module that its names refer to, and the module's output on the example.

    Raises:
        ConfigError: it cannot be recorded, or does what no program can say; names the operation, its line and why.
    """
    module = copy.deepcopy(module).eval()
    tracer = _Tracer(module, example)
    try:
        with torch.no_grad():
            graph = tracer.trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, IndexError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"Cannot convert {type(module).__name__}: {error} ({_culprit(error)}). Expected a module whose forward() takes one "
            f"batch of shape {tuple(example.shape)}, and does with it what torch.fx can record."
        ) from error
    _remove_unused(graph)
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    return _program(graph, tracer.root), tracer.root, fx.node.map_arg(result, lambda n: n.meta["value"])


def _culprit(error: BaseException) -> str:
    trail, found = error.__traceback__, "before any line of its own"
    while trail is not None:
        file = trail.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, _TORCH, "<")):
            found = f"{Path(file).name}:{trail.tb_lineno} {linecache.getline(file, trail.tb_lineno).strip()}"
        trail = trail.tb_next
    return found


def _remove_unused(graph: fx.Graph) -> None:
    """Drop what nobody uses: assertions on shapes, sizes that were asked for and not needed."""
    for node in reversed(list(graph.nodes)):
        in_place = node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__")
        if not node.users and node.op not in ("output", "placeholder") and not in_place:
            graph.erase_node(node)


def _program(graph: fx.Graph, root: nn.Module) -> Program:
    steps, modules, tensors = [], {}, {}
    for node in graph.nodes:
        step = _step(node, root)
        steps.append(step)
        if step.kind == "module":
            module = root.get_submodule(step.target)
            modules[step.target] = {"name": module_name(module), "options": _options(module, node)}
        elif step.kind == "tensor":
            value = _attribute(root, step.target)
            tensors[step.target] = {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."),
                                    "trained": isinstance(value, nn.Parameter)}  # fmt: skip
    return Program(tuple(steps), modules, tensors)


def _step(node: fx.Node, root: nn.Module) -> Step:
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
    try:
        args, kwargs = (encode(part, _reference) for part in (list(node.args), list(node.kwargs.values())))
    except TypeError as error:
        raise ConfigError(
            f'Cannot convert the step "{node.name}" ({line}): it has {error}; expected tensors and numbers.'
        ) from None
    kwargs = dict(zip(node.kwargs, kwargs, strict=True))
    if target in DROPOUTS and "training" in kwargs:
        kwargs["training"] = {"training": True}  # follows the mode of the net instead of the mode it was traced in
    return Step(node.name, kind, target, tuple(args), kwargs or None, line)


def _options(module: nn.Module, node: fx.Node) -> dict:
    return {name: encode(value, lambda _: None) for name, value in module_options(module).items()}


def _reference(value) -> dict | None:
    return {"step": value.name} if isinstance(value, fx.Node) else None


def _attribute(root: nn.Module, path: str):
    for part in path.split("."):
        root = getattr(root, part)
    return root
