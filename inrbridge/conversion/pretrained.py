"""Floor 7: what a pretrained network needs before it is converted: its weights, and the normalization of its input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from inrbridge.errors import ConfigError, ShapeMismatch

SHOWN = 3  # names in an error
_COUNTER = "num_batches_tracked"  # of a batch normalization; files of old torch have none


class Normalized(nn.Module):
    """A network behind (x - mean) / std, so that it takes values as fields have them, such as colours in [0, 1].

    Args:
        network: takes normalized channels (b, c, *shape).
        mean, std: one for each channel, in units of the fields' values.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], dim: int = 2):
        super().__init__()
        if len(mean) != len(std) or not len(mean) or not all(s > 0 for s in std):
            raise ConfigError(
                f"Got the mean {list(mean)} and the standard deviation {list(std)} of the channels, expected one of each for "
                "every channel, the latter above 0."
            )
        self.network = network
        shape = (1, -1, *(1,) * dim)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - self.mean) / self.std)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, prefix: str | None = None, ignore: Sequence[str] = ()) -> nn.Module:
    """Load the weights of a checkpoint into a module; return it, in evaluation mode.

    Args:
        tensors: by name, as `inrbridge.read_tensors(path)` gives them; nested names ("state_dict.module.conv.weight") are told
            by what they end in.
        prefix: what stands before the module's own names; None: the one under which most of them are found.
        ignore: patterns ("*total_ops") of tensors under the prefix that the module has no use for.

    Raises:
        ConfigError: names are missing or left over, or several prefixes serve equally well. ShapeMismatch: other shapes.
    """
    wanted = module.state_dict()
    prefix = _prefix(wanted, tensors) if prefix is None else prefix
    found = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    strange = [name for name in found if name not in wanted and not any(fnmatchcase(name, pattern) for pattern in ignore)]
    if missing or strange:
        parts = [f"lack {_some(missing)}"] * bool(missing) + [f"have {_some(strange)} besides"] * bool(strange)
        raise ConfigError(
            f"The weights {' and '.join(parts)}, expected the {len(wanted)} tensors of {type(module).__name__}, such as "
            f"{next(iter(wanted), 'none')}; build the architecture that they were trained with, or say what stands before "
            "the names (prefix) and which tensors are of no account (ignore)."
        )
    differing = [name for name in wanted if name in found and wanted[name].shape != found[name].shape]
    if differing:
        name = differing[0]
        raise ShapeMismatch(
            f"Got weights of other shapes than {type(module).__name__} has: {name} of {tuple(found[name].shape)}, expected "
            f"{tuple(wanted[name].shape)}" + (f", and {len(differing) - 1} more" if len(differing) > 1 else "")
            + "; build it with the options that they were trained with."
        )  # fmt: skip
    module.load_state_dict({name: found.get(name, value) for name, value in wanted.items()})
    return module.eval()


def _prefix(wanted: Mapping, tensors: Mapping) -> str:
    """Return what stands before most of the names."""
    ends = Counter(name[: len(name) - len(own)] for name in tensors for own in _endings(name) if own in wanted)
    if not ends:
        return ""
    most = max(ends.values())
    best = sorted((prefix for prefix, count in ends.items() if count == most), key=len)
    if len(best) > 1:
        raise ConfigError(
            f"Got weights of this architecture under several names: {', '.join(best)}; say which to take (prefix={best[0]!r})."
        )
    return best[0]


def _endings(name: str) -> list[str]:
    """Return a dotted name, and what is left of it after each dot."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
