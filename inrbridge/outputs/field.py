"""Floor 8: a net and its input as one field, which needs neither the run it comes from nor the files it was asked about.

The output of a dense net has no parameters of its own (Wang & Golland 2023, section 7, "Inseparable outputs"): to keep it is
to keep the net, its input, and the points at which its trunk sees the input.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from inrbridge.data.alignment import align
from inrbridge.discretization import Discretization
from inrbridge.errors import CannotSave, ConfigError, ShapeMismatch, unknown_name
from inrbridge.field import Field
from inrbridge.models import is_own_model
from inrbridge.models.dense import DenseNet
from inrbridge.models.net import INRNet
from inrbridge.native import native_header
from inrbridge.nn import Sampled
from inrbridge.sampling.fixed import fixed_points, named_sampler
from inrbridge.stacking import stack
from inrbridge.transforms import Transform, channel_ranges

ACTIVATIONS = {
    "identity": lambda values: values,
    "softmax": lambda values: values.softmax(-1),
    "sigmoid": torch.sigmoid,
}  # what is applied to the numbers of the net
MOST_POINTS = 2**22  # that a file may ask a trunk to run on
AT_ONCE = 2**15  # coordinates that are read together
REMEMBERED = 16  # trunks whose features are kept


@runtime_checkable
class Generating(Protocol):
    """A net that makes fields of vectors (b, latent)."""

    latent: int

    def features(self, latents: Tensor, discretization: Discretization) -> Sampled: ...

    def read(self, features: Sampled, coords: Tensor) -> Tensor: ...


class ModelField(nn.Module):
    """The output g = T[f] of a net T for one input f, a field or a vector: coords (..., d) -> (..., channels).

    The trunk runs at the first evaluation, and again only when the numbers of the net or of the input have changed. Net and
    input are copied, frozen, and in evaluation mode for good.

    Args:
        net: a `DenseNet`; for a vector one that is `Generating`. Its class is one of inrbridge.models, or named by its module.
        input: a field of a format that can be built anew, or a latent vector (k,).
        points: where the trunk sees the input: sampler, n, seed.
        view: options of `align`, among them `channels`, by which the input is brought onto the net's domain; None: as it is.
        activation: of the output, "identity", "softmax" or "sigmoid"; with "softmax" the channels are shares of classes.
        channel_names: of the output.

    Raises:
        CannotSave: an input that cannot be built anew. ConfigError, CannotAlign: options that do not fit.
    """

    format = "output"

    def __init__(self, net: INRNet, input: Field | Tensor, *, points: Mapping[str, object],
                 view: Mapping[str, object] | None = None, activation: str = "identity",
                 channel_names: Sequence[str] | None = None):  # fmt: skip
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation of an output", activation, ACTIVATIONS, ConfigError)
        self.points = _checked_points(points)
        self.activation = activation
        self.domain, self.channels = net.domain, net.classes
        self.channel_names = None if channel_names is None else tuple(map(str, channel_names))
        self.channel_ranges = ((None if activation == "identity" else (0.0, 1.0)),) * net.classes
        self.are_classes = activation == "softmax"
        self.view = None if view is None else dict(view)
        self.net = copy.deepcopy(net)
        if isinstance(input, Tensor):
            _check_latent(input, net)
            self.register_buffer("latent", input.detach().clone())
        else:
            self.input = _copied(input)
            seen = self.input if view is None else align(self.input, net.domain, **view)
            _check_seen(seen, net)
            self._seen = (seen,)  # in a tuple, for it is no second part of this module
        self._known: dict[tuple, tuple[list[Tensor], Sampled]] = {}
        self.requires_grad_(False).eval()

    @property
    def is_generated(self) -> bool:
        """Whether the input is a latent vector."""
        return "latent" in self._buffers

    @property
    def architecture(self) -> dict[str, object]:
        """All but the numbers, as JSON: the keyword arguments of `OutputFormat.build`."""
        if self.is_generated:
            input = {"latent": len(self.latent)}
        else:
            header = native_header(self.input)
            names = ("format", "architecture", "domain", "channels", "channel_names")
            ranges = [None if r is None else list(r) for r in channel_ranges(self.input)]
            input = {**{name: header[name] for name in names}, "channel_ranges": ranges, "view": self.view}
        net = {**self.net.config(), "name": _name_of(self.net)}
        return {"net": net, "input": input, "points": self.points, "activation": self.activation}

    def train(self, mode: bool = True) -> ModelField:
        """Stay in evaluation mode: a field gives the same values at every call."""
        return super().train(False)

    def forward(self, coords: Tensor) -> Tensor:
        self.domain.check_shape(coords)
        features, flat = self.features(), coords.reshape(-1, self.domain.dim)
        parts = [self._read(features, part) for part in flat.split(AT_ONCE)]
        values = torch.cat(parts) if parts else coords.new_zeros(0, self.channels)
        return values.to(coords.dtype).reshape(*coords.shape[:-1], self.channels)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b fields that differ in their numbers: states (b, ...), coords (n, d) or (b, n, d) -> (b, n, c)."""
        rows = [dict(zip(states, row, strict=True)) for row in zip(*(value.unbind(0) for value in states.values()), strict=True)]
        points = [coords] * len(rows) if coords.ndim == 2 else coords
        return torch.stack([functional_call(self, row, (own,), tie_weights=False) for row, own in zip(rows, points, strict=True)])

    def features(self) -> Sampled:
        """What the trunk gives for the present numbers of net and input."""
        numbers = [*self.parameters(), *self.buffers()]
        if torch.is_grad_enabled() and any(value.requires_grad for value in numbers):
            return self._run()
        key = tuple((value.data_ptr(), value._version, value.device, value.dtype) for value in numbers)
        if key not in self._known:
            while len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            with torch.no_grad():  # what is kept beside: as long as they live, no others can have their addresses
                self._known[key] = ([value.detach() for value in numbers], self._run())
        return self._known[key][1]

    def _run(self) -> Sampled:
        discretization = fixed_points(self.domain, **self.points, device=next(self.net.parameters()).device)
        if self.is_generated:
            return self.net.features(self.latent[None], discretization)
        return self.net.features(self.net.sample(stack(self._seen, trainable=torch.is_grad_enabled()), discretization))

    def _read(self, features: Sampled, coords: Tensor) -> Tensor:
        place = coords.detach().to(features.values)
        if not self.is_generated and self.net.skip:
            values = self.net.read(features, place, self._seen[0](place)[None])
        else:
            values = self.net.read(features, place)
        return ACTIVATIONS[self.activation](values[0])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_known": {}}


def _copied(input: Field) -> nn.Module:
    if isinstance(input, Transform):
        raise CannotSave(
            f"Got an input seen through {type(input).__name__}, expected the field inside; pass its `inner`, and how it is "
            "seen as `view`, the options of inrbridge.data.align."
        )
    native_header(input)  # raises where a field cannot be built anew
    return copy.deepcopy(input)


def _check_seen(seen: Field, net: INRNet) -> None:
    if not isinstance(net, DenseNet):
        raise ConfigError(
            f"Got the net {net.name}, whose output for a field is no field, expected a dense net (models.DenseNet)."
        )
    if seen.domain != net.domain or seen.channels != net.in_channels:
        raise ShapeMismatch(
            f"Got an input on {seen.domain} with {seen.channels} channels, expected {net.in_channels} on {net.domain} by the "
            f'net {net.name}; say how the field is seen: view={{"channels": [...]}}.'
        )


def _check_latent(latent: Tensor, net: INRNet) -> None:
    if not isinstance(net, Generating):
        raise ConfigError(f"Got a vector for the net {net.name}, which takes fields, expected a generator; give it a field.")
    if latent.shape != (net.latent,):
        raise ShapeMismatch(
            f"Got a latent vector of shape {tuple(latent.shape)}, expected ({net.latent},) by the net {net.name}; "
            "give the vectors of a minibatch one by one."
        )


def _checked_points(points: Mapping[str, object]) -> dict[str, object]:
    names = ("sampler", "n", "seed")
    if set(points) != set(names):
        raise ConfigError(f"Got the points {dict(points)!r} of a trunk, expected a sampler, n and a seed.")
    sampler, n, seed = (points[name] for name in names)
    if not isinstance(n, int) or not isinstance(seed, int) or not 0 < n <= MOST_POINTS or not 0 <= seed < 2**63:
        raise ConfigError(
            f"Got n={n!r} and seed={seed!r} of a trunk, expected 1 to {MOST_POINTS} points, and a seed of 0 or more."
        )
    named_sampler(sampler)
    return {"sampler": sampler, "n": n, "seed": seed}


def _name_of(net: INRNet) -> str:
    """Return the name by which `build_model` finds the class of a net."""
    kind = type(net)
    if is_own_model(kind):
        return net.name
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise CannotSave(
            f"Got a net of the class {kind.__qualname__}, which no other program could import, expected one of a module; "
            "move the class into a module of its own."
        )
    return f"{kind.__module__}:{kind.__qualname__}"
