"""What authors of readers lean on: the choice of a dialect, checked tensors, told corners, fields put together from states."""

import pytest
import torch

from inrbridge import Box, foreign
from inrbridge.errors import CannotOpen, ConfigError, ShapeMismatch, UnknownName
from inrbridge.plugins import get_format

DIALECTS = {"plain": {"w"}, "wrapped": {"net.w"}}
BOX = Box.centered(2)


def choose(name, found, tensors=("net.w",)):
    return foreign.choose_dialect(name, DIALECTS, found, lambda dialect: dialect <= set(tensors), tensors, "rename them.")


def test_a_dialect_is_found_or_asked_for():
    assert choose(None, DIALECTS["wrapped"]) is DIALECTS["wrapped"]
    assert choose("wrapped", None) is DIALECTS["wrapped"]
    with pytest.raises(UnknownName, match="wraped"):
        choose("wraped", None)
    with pytest.raises(CannotOpen, match=r'net\.w.*do not fit dialect "plain"'):
        choose("plain", DIALECTS["wrapped"])
    with pytest.raises(CannotOpen, match=r"none of the dialects plain, wrapped; rename them"):
        choose(None, None)


@pytest.mark.parametrize(("dtype", "read"), [(torch.float16, torch.float32), (torch.float32, torch.float32),
                                             (torch.bfloat16, torch.float32), (torch.float64, torch.float64)])  # fmt: skip
def test_real_tensors_come_in_single_or_double_precision(dtype, read):
    values = torch.arange(6.0).reshape(2, 3).to(dtype)
    found = foreign.real_tensor({"w": values}, "w", 2, None)
    assert found.dtype == read and torch.equal(found, values.to(read))


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (torch.zeros(2, 3), (3, 2)),
        (torch.zeros(2, 3), (None,)),
        (torch.zeros(2, 3).long(), ()),
        (torch.zeros(2, dtype=torch.complex64), ()),
        (torch.eye(2).to_sparse(), ()),
    ],
)
def test_other_tensors_are_refused(value, shape):
    with pytest.raises(CannotOpen, match='its tensor "w"'):
        foreign.real_tensor({"w": value}, "w", *shape)
    with pytest.raises(CannotOpen, match='no tensor "v"'):
        foreign.real_tensor({"w": value}, "v")


def test_corners_that_were_told_replace_the_others():
    assert foreign.told_box(None, None, (0, 0), (1, 2)) == Box((0, 0), (1, 2))
    assert foreign.told_box(-3, (4, 5), (0, 0), (1, 2)) == Box((-3, -3), (4, 5))
    for told, error in (((1, 2, 3), ShapeMismatch), ("far", ConfigError), (9, ConfigError), (float("nan"), ConfigError)):
        with pytest.raises(error):
            foreign.told_box(told, None, (0, 0), (1, 2))


def test_what_makes_no_sense_is_told_as_a_file_that_cannot_be_opened():
    for error in (KeyError("w"), RuntimeError("size"), ZeroDivisionError(), ConfigError("Got 0, expected 1.")):
        with pytest.raises(CannotOpen), foreign.fitting_together(has_options=False):
            raise error
    with pytest.raises(ConfigError), foreign.fitting_together(has_options=True):
        raise ConfigError("Got 0, expected 1.")
    with pytest.raises(PermissionError), foreign.fitting_together(has_options=False):
        raise PermissionError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_field_is_put_together_from_its_state(dtype):
    samples = torch.arange(24.0, dtype=dtype).reshape(4, 3, 2)
    field = foreign.assemble(get_format("grid"), BOX, 2, {"shape": [4, 3]}, {"samples": samples})
    assert field.samples.dtype == dtype and torch.equal(field.samples, samples)
    assert field(torch.zeros(5, 2, dtype=dtype)).shape == (5, 2)


def test_parts_of_a_larger_tensor_do_not_keep_it():
    whole = torch.zeros(100, 4, 3, 1)
    field = foreign.assemble(get_format("grid"), BOX, 1, {"shape": [4, 3]}, {"samples": whole[7]})
    assert field.samples.untyped_storage().nbytes() == 48
    with torch.no_grad():
        field.samples.add_(1)
    assert not whole.any()


@pytest.mark.parametrize(
    "state", [{}, {"samples": torch.zeros(4, 2, 1)}, {"samples": torch.zeros(4, 3, 1), "more": torch.zeros(1)}]
)
def test_a_state_of_another_field_is_refused(state):
    with pytest.raises(CannotOpen, match="its part"):
        foreign.assemble(get_format("grid"), BOX, 1, {"shape": [4, 3]}, state)
