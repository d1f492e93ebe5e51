"""Floor 9: the laws about the values of a field."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor
from torch.autograd import forward_ad

from inrbridge.domains import Domain
from inrbridge.field import Differentiable, Field, Stackable, channel_names
from inrbridge.stacking import stack
from inrbridge.testing.case import POINTS, Absent, Case, close, equal, require, values_at


def is_a_field(case: Case) -> None:
    """the file opens as a field: a callable with a domain, channels, and one name for each channel"""
    try:
        field = case.open()
    except Exception as error:
        require(False, f"`open` raised {type(error).__name__}: {error}; it must read {case.path.name}.")
    require(isinstance(field, Field), f"`open` returned a {type(field).__name__}; give it `domain`, `channels` and `__call__`.")
    require(
        isinstance(field.domain, Domain), f"its domain is {field.domain!r}; make it an inrbridge domain such as Box.centered(2)."
    )
    count = isinstance(field.channels, int) and not isinstance(field.channels, bool) and field.channels > 0
    require(count, f"its channels are {field.channels!r}; make it a whole number of at least 1.")
    names = channel_names(field)
    require(len(names) == field.channels, f"it names the channels {names}, and has {field.channels}; give one name a channel.")
    assumed = getattr(field, "assumed", ())
    texts = isinstance(assumed, tuple) and all(isinstance(text, str) for text in assumed)
    require(texts, f"its `assumed` is {assumed!r}; make it a tuple of sentences.")


def has_the_shape(case: Case) -> None:
    """coords (*batch, d) give finite values (*batch, channels), for 0, 1 and 2 batch dimensions"""
    field = case.field
    for batch in ((), (5,), (2, 3)):
        coords = case.points(*batch) if batch else case.points(1)[0]
        values = values_at(field, coords)
        expected = (*batch, field.channels)
        found = tuple(values.shape)
        require(
            found == expected, f"coords {tuple(coords.shape)} gave values {found}, expected {expected}; keep all leading axes."
        )
        require(
            bool(values.isfinite().all()), "its values are not finite on its own domain; make the domain smaller or mend them."
        )


def is_pointwise(case: Case) -> None:
    """the value at a point depends on no other point of the call"""
    field, coords = case.steady_field, case.points()
    values = values_at(field, coords)
    order = torch.arange(POINTS - 1, -1, -1)
    advice = "no statistics over the points of a call (batch normalization belongs in eval mode)."
    require(
        close(values_at(field, coords[order]), values[order]), f"reversing the points does more than reverse the values; {advice}"
    )
    require(close(values_at(field, coords[:3]), values[:3]), f"fewer points change the values at the others; {advice}")


def is_deterministic(case: Case) -> None:
    """the same points give the same values, whatever the global seed and however often the file is opened"""
    field, coords = case.field, case.points()
    first = values_at(field, coords)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        require(torch.equal(values_at(field, coords), first), "a second call gave other values; leave dropout and noise out.")
        require(
            torch.equal(values_at(case.open(), coords), first),
            "opening the file again gave another field; seed nothing at random.",
        )


def keeps_dtype_and_device(case: Case) -> None:
    """values come in the dtype and on the device of the coordinates"""
    field = case.field
    for dtype in (torch.float32, torch.float64):
        found = values_at(field, case.points(dtype=dtype)).dtype
        require(found == dtype, f"coords in {dtype} gave values in {found}; compute and answer in the dtype of the coordinates.")
    if torch.cuda.is_available() and isinstance(field, torch.nn.Module):
        found = values_at(case.open().cuda(), case.points().cuda()).device.type
        require(found == "cuda", f"coords on cuda gave values on {found}; create tensors on the device of the coordinates.")


def has_finite_gradients(case: Case) -> None:
    """gradients with respect to the coordinates are finite"""
    field, coords = case.field, case.points()
    gradient = _gradient(field, coords, torch.ones(POINTS))
    advice = "guard sqrt, norm and division where their argument is 0."
    require(bool(gradient.isfinite().all()), f"gradients with respect to the coordinates are not finite; {advice}")
    if isinstance(field, Differentiable):
        own = field.gradient(coords)[:, 0]
        require(close(own, gradient), "its own `gradient` differs from that of autograd; correct it or leave it out.")


def keeps_tangents(case: Case) -> None:
    """derivatives along a direction in forward mode are those of backward mode, or refused"""
    field, coords = case.steady_field, case.points()
    share = torch.linspace(0.5, 1.5, POINTS)
    gradient = _gradient(field, coords, share)
    if not bool(gradient.isfinite().all()):
        raise Absent("its gradients are not finite (law has_finite_gradients)")
    direction = torch.linspace(-1, 1, coords.numel(), dtype=coords.dtype).reshape(coords.shape)
    with forward_ad.dual_level():
        try:
            found = forward_ad.unpack_dual(field(forward_ad.make_dual(coords, direction))).tangent
        except (NotImplementedError, RuntimeError):
            return
        found = coords.new_zeros(()) if found is None else (share * found[:, 0]).sum()
    parts = gradient * direction
    expected, scale = parts.sum(), parts.abs().sum()
    advice = "give autograd functions a `jvp`, or let kernels without derivatives raise an error."
    same = close(torch.stack([found, scale]), torch.stack([expected, scale]))
    require(same, f"in forward mode its derivatives are others, or lost; {advice}")


def _gradient(field: Field, coords: Tensor, share: Tensor) -> Tensor:
    """The gradient with respect to the coordinates (n, d) of the sum of the first channel, each point with its share (n,)."""
    coords = coords.clone().requires_grad_()
    values = field(coords)
    if not values.requires_grad:
        raise Absent("its values carry no gradient with respect to the coordinates")
    return torch.autograd.grad((share * values[:, 0]).sum(), coords)[0]


def stacks_like_a_loop(case: Case) -> None:
    """fields evaluated as one stack have the values they have one by one"""
    fields = [case.steady_field, case.open(), *_variants(case)]
    for coords in (case.points(), case.points(len(fields), POINTS)):
        each = coords if coords.ndim == 3 else [coords] * len(fields)
        truth = torch.stack([values_at(field, own) for field, own in zip(fields, each, strict=True)])
        with torch.no_grad():
            found = stack(fields)(coords)
            require(close(found, truth), f"{len(fields)} fields stacked differ from each alone; correct `evaluate_stack`.")


def _variants(case: Case) -> list[Field]:
    """Two fields of the same architecture with other weights, where the format builds any."""
    field = case.field
    if not isinstance(field, Stackable) or "build" not in case.format.abilities():
        return []
    built = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        try:
            built.append(case.format.build(field.domain, field.channels, generator=generator, **field.architecture))
        except Exception:  # law `builds_anew` says what is wrong with it
            return []
    return built


def survives_pickling(case: Case) -> None:
    """a field that went through pickle, as to a worker process, has the same values"""
    field = case.steady_field
    try:
        copy = pickle.loads(pickle.dumps(field))
    except Exception as error:
        require(False, f"it cannot be pickled ({type(error).__name__}: {error}); keep lambdas, open files and locks out of it.")
    require(equal(copy, case.points(), field), "the unpickled field has other values; keep what it needs in its attributes.")


FIELD_LAWS = (
    is_a_field, has_the_shape, is_pointwise, is_deterministic, keeps_dtype_and_device, has_finite_gradients, keeps_tangents,
    stacks_like_a_loop, survives_pickling,
)  # fmt: skip
