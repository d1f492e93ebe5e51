"""What the fields of this format share: coordinates on the unit cube, many networks at once, and what values mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from inrbridge import Domain, batched

# A chunk of this many activations stays in a core's cache: measured up to twice as fast as one pass on small networks.
_CACHE_NUMBERS = 2**18


def to_unit(coords: Tensor, domain: Domain, dtype: torch.dtype, normalize: bool) -> Tensor:
    """Map coordinates from the domain's bounds to [0, 1]^d, or leave them as they are.

    Half precision would lose the phase of 2 pi B u: those coordinates are lifted to `dtype`, that of the parameters.
    """
    x = coords if coords.dtype in (torch.float32, torch.float64) else coords.to(dtype)
    low, high = domain.bounds
    if not normalize or (all(a == 0 for a in low) and all(b == 1 for b in high)):
        return x
    return (x - x.new_tensor(low)) / x.new_tensor([b - a for a, b in zip(low, high, strict=True)])


def in_chunks(
    evaluate: Callable[[Tensor, Mapping[str, Tensor]], Tensor], states: Mapping[str, Tensor], x: Tensor, width: int
) -> Tensor:
    """Evaluate b networks on x (n, d) or (b, n, d); without gradients a few at a time, of values `width` wide."""
    states = {name: value.to(x.dtype) for name, value in states.items()}
    b = next(iter(states.values())).shape[0]
    x = x.expand(b, *x.shape[-2:])
    if batched.asks_gradient(x, states.values()):
        return evaluate(x, states)
    with torch.no_grad():
        parts = [evaluate(x[part], {name: value[part] for name, value in states.items()}) for part in _chunks(x, width)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chunks(x: Tensor, width: int) -> list[slice]:
    b, n, _ = x.shape
    return batched.slices(b, max(1, _CACHE_NUMBERS // max(1, n * width)) if x.device.type == "cpu" else max(1, b))


def meaning(field: nn.Module) -> dict:
    """Return the options of `build` that say what coordinates and values are, where they differ from the defaults."""
    ranges = field.channel_ranges
    extras = {
        "normalize": (field.normalize, True),
        "axes": (field.axes and list(field.axes), None),
        "channel_ranges": (ranges and [pair and list(pair) for pair in ranges], None),
    }
    return {name: value for name, (value, default) in extras.items() if value != default}
