"""Dataclasses whose attributes are options."""

import json
from dataclasses import dataclass

import pytest

from inrbridge import errors
from inrbridge.options import changed_options, from_options


@dataclass(frozen=True)
class Lens:
    width: int
    colour: str = "clear"
    rotation: tuple[tuple[float, ...], ...] | None = None
    weights: object = None


def test_only_what_differs_is_written_and_comes_back():
    lens = Lens(3, rotation=((0.0, 1.0), (1.0, 0.0)))
    options = changed_options(lens)
    assert options == {"width": 3, "rotation": [[0.0, 1.0], [1.0, 0.0]]}
    assert changed_options(from_options(Lens, json.loads(json.dumps(options)))) == options
    assert changed_options(from_options(Lens, {"width": 1})) == {"width": 1}


def test_arrays_are_told_from_nothing():
    torch = pytest.importorskip("torch")
    assert list(changed_options(Lens(1, weights=torch.zeros(2)))) == ["width", "weights"]


def test_unknown_options_are_refused():
    with pytest.raises(errors.ConfigError, match=r'no option of a lens "color".*Did you mean "colour"'):
        from_options(Lens, {"width": 1, "color": "red"})
