"""The field of a multiplicative filter network (Fathony et al. 2021; BACON, Lindell et al. 2022): products of sines.

    f_i = sin(F_i x + p_i),   z_0 = f_0,   z_i = f_i * (W_i z_{i-1} + b_i),   value = final(R z_L + r)

A product of sines is a sum of sines of summed frequencies: the first levels of such a network are band-limited versions of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inrbridge import Domain, batched, errors
from inrbridge_fourier.evaluation import in_chunks, meaning, to_unit
from inrbridge_fourier.field import FINALS


class FilterField(nn.Module):
    """A network of `layers` linear layers of `width` units between layers + 1 filters; parameters are left unset.

    `sigma` is the deviation of the frequencies of all filters together, in cycles across the domain. The other arguments are
    those of `FourierField`.
    """

    format = "fourier"

    def __init__(self, domain: Domain, channels: int, width: int, layers: int, *, sigma: float | None = 5.0,
                 final: str = "identity", normalize: bool = True, axes: Sequence[str] | None = None,
                 channel_ranges: Sequence[Sequence[float]] | None = None):  # fmt: skip
        super().__init__()
        self.domain, self.channels, self.channel_names = domain, channels, None
        self.width, self.sigma = width, sigma if sigma is None else float(sigma)
        self.final, self.normalize = final, normalize
        self.axes = tuple(axes) if axes else None
        self.channel_ranges = tuple(pair and tuple(pair) for pair in channel_ranges) if channel_ranges else None
        self.assumed: tuple[str, ...] = ()
        if not isinstance(width, int) or width < 1 or layers < 1:
            raise errors.ConfigError(f"Got {layers} layers of width {width}, expected at least one layer, all of one width.")
        if final not in FINALS:
            raise errors.unknown_name("final activation", final, FINALS)
        self.filters = nn.ModuleList(batched.unset_linear(domain.dim, width) for _ in range(layers + 1))
        self.layers = nn.ModuleList(batched.unset_linear(width, width) for _ in range(layers))
        self.readout = batched.unset_linear(width, channels)

    @property
    def architecture(self) -> dict:
        """Keyword arguments of `FourierFormat.build` that make this network anew (JSON)."""
        facts = {"network": "filters", "width": self.width, "layers": len(self.layers), "sigma": self.sigma}
        return facts | ({"final": self.final} if self.final != "identity" else {}) | meaning(self)

    def draw(self, generator: torch.Generator) -> None:
        """Draw normal frequencies that sum up to `sigma`, even phases, and layers that keep the spread of the products."""
        share = 2 * math.pi * (1.0 if self.sigma is None else self.sigma) / math.sqrt(len(self.filters))
        bound = math.sqrt(6 / self.width)
        with torch.no_grad():
            for layer in self.filters:
                layer.weight.normal_(0.0, share, generator=generator)
                layer.bias.uniform_(-math.pi, math.pi, generator=generator)
            for layer in (*self.layers, self.readout):
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-1 / math.sqrt(self.width), 1 / math.sqrt(self.width), generator=generator)

    def forward(self, coords: Tensor) -> Tensor:
        """Evaluate at coords (..., d) in domain units: values (..., channels) in the dtype of coords."""
        self.domain.check_shape(coords)
        x = to_unit(coords, self.domain, self.readout.weight.dtype, self.normalize)
        states = {name: value.to(x.dtype) for name, value in self.named_parameters()}
        return self._evaluate(x, states, functional.linear).to(coords.dtype)

    def evaluate_stack(self, states: Mapping[str, Tensor], coords: Tensor) -> Tensor:
        """Evaluate b networks of this architecture: coords (n, d) or (b, n, d) -> values (b, n, channels).

        `states` holds the stacked parameters: "filters.i.weight" (b, width, d), "layers.i.weight" (b, width, width),
        "readout.weight" (b, channels, width), and their biases. Differentiable in the states and in the coordinates.
        """
        x = to_unit(coords, self.domain, self.readout.weight.dtype, self.normalize)
        values = in_chunks(lambda x, states: self._evaluate(x, states, batched.linear), states, x, self.width)
        return values.to(coords.dtype)

    def _evaluate(self, x: Tensor, states: Mapping[str, Tensor], linear: Callable) -> Tensor:
        def apply(name: str, z: Tensor) -> Tensor:
            return linear(z, states[f"{name}.weight"], states[f"{name}.bias"])

        z = apply("filters.0", x).sin()
        for i in range(len(self.layers)):
            z = apply(f"filters.{i + 1}", x).sin() * apply(f"layers.{i}", z)
        return FINALS[self.final](apply("readout", z))
