"""The architecture of a foreign network from the shapes of its layers, and its weights in inrbridge's order of columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from inrbridge import errors
from inrbridge_nerf.dialects import Dialect, Found

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What the shapes of a network tell: options of `NerfFormat.build`, parts of its convention, and columns of encodings."""

    options: dict
    convention: dict
    encoded: int
    seen: int


def solve(found: Found, shapes: dict[str, Shape]) -> Layout:
    """Read the architecture from the shapes of the layers, weights (out, in).

    Raises:
        CannotOpen: the shapes fit no network of this dialect.
    """
    dialect, layers = found.dialect, found.layers

    def sizes(name: str) -> tuple[int, int]:
        weight, bias = shapes[f"{name}.weight"], shapes[f"{name}.bias"]
        if len(weight) != 2 or tuple(bias) != (weight[0],) or not all(weight):
            raise errors.CannotOpen(f'its layer "{name}" has weights of shape {weight} and biases of {bias}.')
        return weight[1], weight[0]

    def expect(name: str, inputs: int | None, outputs: int | tuple[int, ...]) -> int:
        has, gives = sizes(name)
        wanted = outputs if isinstance(outputs, tuple) else (outputs,)
        if (inputs is not None and has != inputs) or gives not in wanted:
            raise errors.CannotOpen(f'its layer "{name}" is {has} -> {gives}, expected {inputs} -> {wanted[0]}.')
        return gives

    encoded, width = sizes(layers.trunk[0])
    frequencies, raw = _frequencies(layers.trunk[0], encoded)
    if dialect.always_raw and not raw:
        raise errors.CannotOpen(
            f'its layer "{layers.trunk[0]}" has {encoded} inputs, expected 3 + 6 n for n frequencies of positions; one that '
            "reads directions beside them is not supported."
        )
    skips = []
    for i, name in enumerate(layers.trunk[1:], 1):
        inputs, _ = sizes(name)
        expect(name, width + encoded if inputs == width + encoded else width, width)
        if inputs != width:
            skips.append(i)
    options = {"width": width, "layers": len(layers.trunk), "skips": skips, "frequencies": frequencies,
               "first_active": dialect.first_active}  # fmt: skip
    spoken = dialect.encoding
    convention = {"normalize": False, "unit": spoken.unit, "highest": spoken.highest, "raw": raw, "cosine": spoken.cosine}
    if layers.readout:
        expect(layers.readout, width, (4, 5))
        return Layout(options | {"head": "medium"}, convention, encoded, 0)
    feature = expect(layers.feature, width, sizes(layers.feature)[1]) if layers.feature else width
    expect(layers.density, width, 1)
    joined = sizes((*layers.branch, layers.colour)[0])
    seen = joined[0] - feature
    if seen < 3:
        raise errors.CannotOpen(f"its first layer that sees directions has {joined[0]} inputs, expected more than {feature + 2}.")
    direction_frequencies, direction_raw = _frequencies(layers.branch[0] if layers.branch else layers.colour, seen)
    branch, before = [], joined[0]
    for name in layers.branch:
        before = expect(name, before, sizes(name)[1])
        branch.append(before)
    expect(layers.colour, before, 3)
    kind = "none" if layers.feature is None else "active" if dialect.feature_active else "linear"
    options |= {"head": "radiance", "direction_frequencies": direction_frequencies, "branch": branch, "feature": kind}
    options |= {"feature_width": feature} if layers.feature else {}
    convention |= {"direction_highest": spoken.direction_highest, "direction_raw": direction_raw}
    return Layout(options, convention, encoded, seen)


def _frequencies(name: str, count: int) -> tuple[int, bool]:
    """Return the number of frequencies of three coordinates in `count` columns, and whether the coordinates are among them."""
    if count % 3:
        raise errors.CannotOpen(f'its layer "{name}" reads {count} features of coordinates, expected a multiple of 3.')
    return count // 6, count % 6 == 3


def state_of(found: Found, layout: Layout, tensor: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return the state of a `NerfField`.

    Args:
        tensor: name in the network -> its values, weights (out, in).
    """
    dialect, layers = found.dialect, found.layers
    places = _in_our_order(dialect, layout.options["frequencies"], layout.convention["raw"])
    state = {}

    def take(ours: str, name: str, joined: int = 0, order: list[int] | None = None, first: bool = True) -> None:
        """Take a layer of which `joined` inputs are an encoding, `first` or last."""
        weight = tensor(f"{name}.weight")
        if joined:
            encoding, rest = (weight[:, :joined], weight[:, joined:]) if first else (weight[:, -joined:], weight[:, :-joined])
            weight = torch.cat([encoding[:, order], rest], 1)
        state[f"{ours}.weight"], state[f"{ours}.bias"] = weight, tensor(f"{name}.bias")

    for i, name in enumerate(layers.trunk):
        joins = i == 0 or i in layout.options["skips"]
        take(f"trunk.{i}", name, layout.encoded if joins else 0, places, i == 0 or dialect.encoding_first)
    if layers.readout:
        take("readout", layers.readout)
        return {name: value[:4] if name.startswith("readout") else value for name, value in state.items()}  # the fifth is unused
    take("density", layers.density)
    if layers.feature:
        take("feature", layers.feature)
    directions = _in_our_order(dialect, layout.options["direction_frequencies"], layout.convention["direction_raw"])
    for i, name in enumerate((*layers.branch, layers.colour)):
        ours = f"branch.{i}" if i < len(layers.branch) else "colour"
        take(ours, name, 0 if i else layout.seen, directions, dialect.direction_first)
    return state


def _in_our_order(dialect: Dialect, count: int, raw: bool, dim: int = 3) -> list[int]:
    """Return for each column of our encoding (coordinates, then nested fsc) the writer's column."""
    theirs = columns_of(dialect.encoding.order, dialect.encoding.raw if raw else None, count, dim)
    return [theirs.index(label) for label in columns_of("fsc", "first" if raw else None, count, dim)]


def columns_of(order: str, raw: str | None, count: int, dim: int) -> list[tuple]:
    """Label the columns of an encoding: ("raw", coordinate), or (frequency, 0 for sine or 1 for cosine, coordinate)."""
    ranges = {"f": range(count), "s": range(2), "c": range(dim)}
    waves = []
    for values in product(*(ranges[letter] for letter in order)):
        at = dict(zip(order, values, strict=True))
        waves.append((at["f"], at["s"], at["c"]))
    if raw is None:
        return waves
    if raw == "each":  # order begins with c
        share = 2 * count
        return [label for c in range(dim) for label in [("raw", c), *waves[c * share : (c + 1) * share]]]
    alone = [("raw", c) for c in range(dim)]
    return alone + waves if raw == "first" else waves + alone
