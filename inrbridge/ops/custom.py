"""Floor 1: multilinear forms as operators of torch, `inrbridge::partial` and `inrbridge::gradients`: one node of a graph each.

A compiler, a fake tensor or a recorder of graphs sees tensors in, a tensor of known shape out, and nothing of the kernel that
computes it. A form is named by a number; what belongs to the number is a `multilinear.Multilinear` of this process.
(`torch.library.Library`: 7 us a call on the CPU where `torch.library.custom_op` takes 18.)
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from inrbridge.errors import UnknownName

if TYPE_CHECKING:
    from inrbridge.ops.multilinear import Multilinear

_count = itertools.count()
_forms: WeakValueDictionary[int, Multilinear] = WeakValueDictionary()
_traced: set[Multilinear] = set()  # a recorded graph knows them by number alone, and may outlive all others who hold them


def register(form: Multilinear) -> int:
    """Give a form its number."""
    number = next(_count)
    _forms[number] = form
    return number


def numbered(number: int) -> Multilinear:
    """Return the form that has a number.

    Raises:
        UnknownName: nobody holds it any more.
    """
    form = _forms.get(number)
    if form is None:
        raise UnknownName(
            f"Got the number {number} of an operator that does not exist in this process, expected one whose discretization is "
            "alive; keep the discretization for as long as graphs that were recorded on it are used."
        )
    return form


_library = torch.library.Library("inrbridge", "FRAGMENT")
_library.define("partial(Tensor[] stands, int form, int place) -> Tensor")
_library.define("gradients(Tensor[] factors, Tensor cotangent, int form) -> Tensor[]")


def _partial(stands: list[Tensor], form: int, place: int) -> Tensor:
    return numbered(form).partials[place](*stands).contiguous()  # as the shape below promises


def _gradients(factors: list[Tensor], cotangent: Tensor, form: int) -> list[Tensor]:
    return [gradient.contiguous() for gradient in numbered(form).gradients(*factors, cotangent)]


_library.impl("partial", _partial, "CompositeExplicitAutograd")
_library.impl("gradients", _gradients, "CompositeExplicitAutograd")


@torch.library.register_fake("inrbridge::partial")
def _partial_shape(stands: list[Tensor], form: int, place: int) -> Tensor:
    _traced.add(numbered(form))
    return stands[0].new_empty(numbered(form).shape(place, *stands))


@torch.library.register_fake("inrbridge::gradients")
def _gradients_shape(factors: list[Tensor], cotangent: Tensor, form: int) -> list[Tensor]:
    _traced.add(numbered(form))
    return [torch.empty_like(factor, memory_format=torch.contiguous_format) for factor in factors]
