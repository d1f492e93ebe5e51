"""Floor 7: record what a torch module does, on an example, so that what depends on shapes is known.

`torch.fx` records the operations. Each is carried out on the example at once: a branch on a size or a loop over one has an
answer, a branch on the values of pixels has none and is refused with its line.
"""

from __future__ import annotations

import copy
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from inrbridge.errors import ConfigError
from inrbridge.models.converted.vocabulary import FACTORIES, module_name

_OURS = str(Path(__file__).parents[1])
_TORCH = str(Path(torch.__file__).parent)
_KNOWN_ATTRIBUTES = ("ndim", "dtype", "device", "is_cuda", "requires_grad", "layout", "itemsize")


@dataclass(frozen=True, eq=False)
class Recording:
    """What a module did: nodes whose meta["value"] is the result on the example, and meta["line"] where it came from.

    Args:
        root: the module that targets of the graph refer to.
    """

    graph: fx.Graph
    root: nn.Module

    @property
    def output(self):
        """The output on the example."""
        result = next(node for node in self.graph.nodes if node.op == "output").args[0]
        return fx.node.map_arg(result, lambda n: n.meta["value"])


def record(module: nn.Module, example: Tensor, training: bool = False) -> Recording:
    """Record what a module does in one mode; the module is not changed.

    Args:
        example: a batch of inputs (b, c, *shape).

    Raises:
        ConfigError: it cannot be recorded; names the line and why.
    """
    _require_one_input(module)
    try:
        tracer = _Tracer(copy.deepcopy(module).train(training), example.clone())
        with torch.no_grad(), _factories_recorded(tracer):
            graph = tracer.trace(tracer.root)
    except ConfigError:
        raise
    except Exception as error:  # whatever a module's own code may raise when it meets a proxy
        raise ConfigError(
            f"Cannot convert {type(module).__name__}: {error} ({_culprit(error)}). Expected a module whose forward() takes one "
            f"batch of shape {tuple(example.shape)}, and does with it what torch.fx can record."
        ) from error
    _remove_unused(graph)
    if not torch.equal(tracer.example, example):
        _copy_input(graph)
    return Recording(graph, tracer.root)


class KnownProxy(fx.Proxy):
    """A proxy that knows its value on the example: numbers among them decide branches and loops."""

    @property
    def value(self):
        return self.node.meta["value"]

    def _number(self, what: str):
        if isinstance(self.value, Tensor):
            raise ConfigError(
                f"Cannot convert: {self.tracer.line()} asks for {what} of a tensor, and so depends on the values of pixels or on "
                "chance; expected a network whose operations are the same for all inputs. Take that decision out of forward()."
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
            if name in _KNOWN_ATTRIBUTES:
                return getattr(value, name)
            if name in ("T", "mT"):
                return self.transpose(-2, -1)
            if name == "data":
                return self.detach()
        elif isinstance(value, tuple) and hasattr(value, name):  # the values and indices of a maximum
            return next(self[place] for place, part in enumerate(value) if part is getattr(value, name))
        return super().__getattr__(name)


@contextmanager
def _factories_recorded(tracer: _Tracer) -> Iterator[None]:
    """Record tensors that are made in forward() with a size that is known by a proxy alone, or by chance.

    `torch.zeros(x.shape[0], 1)` does not reach a proxy by torch's own protocol: the functions are replaced for the while.
    """
    with ExitStack() as stack:
        for word in FACTORIES:
            name = word.removeprefix("torch.")
            stack.enter_context(patch.object(torch, name, _recorded(tracer, name, getattr(torch, name))))
        yield


def _recorded(tracer: _Tracer, name: str, function: Callable) -> Callable:
    def make(*args, **kwargs):
        has_proxies = any(isinstance(part, fx.Proxy) for part in tree_leaves((args, kwargs)))
        if not tracer.is_carrying_out and (has_proxies or name.startswith("rand")):
            return tracer.create_proxy("call_function", function, args, kwargs)
        return function(*args, **kwargs)

    return make


class _Tracer(fx.Tracer):
    def __init__(self, root: nn.Module, example: Tensor):
        super().__init__()
        self.proxy_buffer_attributes = True
        self.root, self.example = root, example
        self.is_carrying_out = False  # torch.fx replaces calls and attributes of all modules while it traces

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        """Only the first argument of forward() is an input; the others have their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "input", (), {})]

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        has_hooks = module._forward_hooks or module._forward_pre_hooks  # as weight_norm has: they are the module's own code
        return module_name(module) is not None and not has_hooks

    def proxy(self, node: fx.Node) -> KnownProxy:
        return KnownProxy(node, self)

    def iter(self, proxy):
        return iter(proxy)

    def to_bool(self, proxy):
        return bool(proxy)

    def create_node(self, kind, target, args, kwargs, name=None, type_expr=None):
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        node.meta["line"] = self.line()
        node.meta["value"] = self._carry_out(node)
        return node

    def create_proxy(self, kind, target, args, kwargs, name=None, type_expr=None, proxy_factory_fn=None):
        if kind == "call_function" and isinstance(target, FunctionType) and not target.__module__.startswith("torch"):
            return target(*args, **kwargs)  # wrapped to be seen as one step: what it does is recorded instead
        return super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)

    def call_module(self, module, forward, args, kwargs):
        return forward(*args, **kwargs) if self.is_carrying_out else super().call_module(module, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        return attr_val if self.is_carrying_out else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _carry_out(self, node: fx.Node):
        self.is_carrying_out = True
        try:
            return self._result(node)
        finally:
            self.is_carrying_out = False

    def _result(self, node: fx.Node):
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["value"])
        if node.op == "placeholder":
            return self.example
        if node.op == "get_attr":
            return attribute(self.root, node.target)
        if node.op == "call_module":
            return self.root.get_submodule(node.target)(*args, **kwargs)
        if node.op == "call_method":
            return args[0].shape if node.target == "shape" else getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs) if node.op == "call_function" else args[0]

    def line(self) -> str:
        """The innermost line of the network's own code that is being run, or the layer of torch that is."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code is not record.__code__:
            file = frame.f_code.co_filename
            if not file.startswith((_OURS, _TORCH, "<")) and "/contextlib.py" not in file:
                text = linecache.getline(file, frame.f_lineno).strip()
                return f"{Path(file).name}:{frame.f_lineno}" + (f" ({text})" if text else "")
            frame = frame.f_back
        return f"{self.scope.module_path or 'the network'}, a {getattr(self.scope.module_type, '__name__', 'module')}"


def attribute(root: nn.Module, path: str):
    """Return what a path of names with dots leads to."""
    for part in path.split("."):
        root = getattr(root, part)
    return root


def _require_one_input(module: nn.Module) -> None:
    parameters = inspect.signature(module.forward).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) > 1 or not parameters:
        raise ConfigError(
            f"Got a {type(module).__name__} whose forward() takes {', '.join(required) or 'nothing'}, expected one batch of "
            "images (b, c, *shape); wrap it in a module that makes the other inputs."
        )


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
        if not node.users and node.op not in ("output", "placeholder", "call_module") and not _writes(node):
            graph.erase_node(node)


def _writes(node: fx.Node) -> bool:
    """Whether an operation changes a tensor that it is given; a module may, and may keep statistics too."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return node.op != "get_attr" and ((name.endswith("_") and not name.endswith("__")) or bool(node.kwargs.get("inplace")))


def _copy_input(graph: fx.Graph) -> None:
    """Let a network that writes on its input write on a copy of it: samples are nobody's to change."""
    given = next(iter(graph.nodes))
    with graph.inserting_after(given):
        own = graph.call_method("clone", (given,))
    own.meta.update(given.meta)
    given.replace_all_uses_with(own, delete_user_cb=lambda user: user is not own)
