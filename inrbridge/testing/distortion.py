"""Floor 9: values of a file distorted: tensors of another type or shape, not finite, missing, renamed; numbers replaced."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrbridge.testing.rewriting import Keys, changed, leaves_of

_TYPES = {"integers": torch.int64, "bytes": torch.uint8, "booleans": torch.bool, "halves": torch.float16,
          "bfloat16": torch.bfloat16, "doubles": torch.float64, "complex numbers": torch.complex64,
          "small integers": torch.int8}  # fmt: skip
_SHAPES = {
    "transposed": lambda t: t.mT.contiguous() if t.dim() > 1 else t[None],
    "flattened": lambda t: t.reshape(-1),
    "with one axis more": lambda t: t[None],
    "of one number": lambda t: t.reshape(-1)[:1].reshape(()) if t.numel() else t.new_zeros(()),
    "empty": lambda t: t[:0] if t.dim() else t.new_zeros(0),
    "without its last row": lambda t: t[:-1] if t.dim() else t,
    "without its last column": lambda t: t[..., :-1] if t.dim() else t,
    "with a row more": lambda t: torch.cat([t, t[:1]]) if t.dim() else t,
    "repeated": lambda t: torch.cat([t, t], -1) if t.dim() else t,
    "halved": lambda t: t.reshape(-1)[: t.numel() // 2],
    "of no columns": lambda t: t[..., :0] if t.dim() else t,
    "seen as huge": lambda t: t.reshape(-1)[:1].expand(2**20, 2**12) if t.numel() else t,
    "in many axes": lambda t: t.reshape(*t.shape, *[1] * 12),
}
_VALUES = {
    "not a number": lambda t: torch.full_like(t, torch.nan),
    "infinite": lambda t: torch.full_like(t, torch.inf),
    "zero": torch.zeros_like,
    "huge": lambda t: torch.full_like(t, 3e38 if t.dtype == torch.float32 else torch.finfo(t.dtype).max),
    "negative": lambda t: -t - 1,
    "with one number missing": lambda t: t.clone().reshape(-1).index_fill(0, torch.tensor([0]), torch.nan).reshape(t.shape),
}
_INTEGERS = {
    "all -1": lambda t: torch.full_like(t, -1), "all of the largest": lambda t: torch.full_like(t, torch.iinfo(t.dtype).max),
    "all 0": torch.zeros_like, "reversed": lambda t: t.flip(0) if t.dim() else t,
}  # fmt: skip
_NUMBERS = (
    0,
    -1,
    1,
    3,
    2**31,
    2**62,
    10**30,
    0.5,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "text",
    "3",
    None,
    True,
    False,
    [],
    [1],
    {},
    {"a": 1},
)


def distorted(content: object, chance: np.random.Generator) -> tuple[str, object]:
    """Return what was done, and a copy of the tree in which it is done to one leaf (or, now and then, to all)."""
    places = list(leaves_of(content))
    if not places:
        return "nothing in it", content
    tensors = [(keys, value) for keys, value in places if isinstance(value, Tensor | np.ndarray) and value.dtype != object]
    others = [(keys, value) for keys, value in places if not isinstance(value, Tensor | np.ndarray)]
    if chance.random() < 0.1:
        return _whole(content, tensors, chance)
    # every tensor has its turn, and beside them the numbers, whatever there are more of
    keys, value = _drawn(tensors if tensors and (not others or chance.random() < 0.7) else others or places, chance)
    name = ".".join(map(str, keys))
    kind = chance.choice(["value", "value", "value", "missing", "renamed", "twice"]) if keys else "value"
    if kind != "value":
        return f"{name} {kind}", changed(content, keys, lambda owner: _moved(owner, keys[-1], kind))
    what, new = _new_tensor(value, chance) if isinstance(value, Tensor | np.ndarray) else _new_number(value, chance)
    return f"{name} {what}", changed(content, keys, lambda owner: _with(owner, keys[-1], new)) if keys else new


def _drawn(places: list, chance: np.random.Generator):
    return places[int(chance.integers(len(places)))]


def _with(owner, key, new):
    owner[key] = new
    return owner


def _moved(owner, key, kind: str):
    if isinstance(owner, list):
        if kind == "missing":
            del owner[key]
        else:
            owner.insert(key if kind == "twice" else 0, owner[key] if kind == "twice" else owner.pop(key))
        return owner
    value = owner[key] if kind == "twice" else owner.pop(key)
    if kind != "missing":
        owner[f"{key}_old" if kind == "renamed" else f"{key}.1"] = value
    return owner


def _whole(content: object, tensors: list[tuple[Keys, object]], chance: np.random.Generator) -> tuple[str, object]:
    kind = chance.choice(["wrapped", "emptied", "one type", "one value", "few"])
    if kind == "wrapped":
        return "all in a dict of their own", {"state_dict": content}
    if kind == "emptied":
        return "nothing left in it", {}
    seed = int(chance.integers(2**31))
    keep = int(chance.integers(1, 4))
    what = kind
    for i, (keys, value) in enumerate(tensors):
        same = np.random.default_rng(seed)  # the same draw for each
        if kind == "few":
            if i % keep == 0 and isinstance(content, dict) and keys:
                content = changed(content, keys, lambda owner, key=keys[-1]: owner[key] is not None and _without(owner, key))
            continue
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":  # texts among the arrays
            continue
        tensor = _torch(value)
        what, new = _cast(tensor, same) if kind == "one type" else _revalued(tensor, same)
        if keys:
            content = changed(content, keys, lambda owner, key=keys[-1], new=new, old=value: _with(owner, key, _like(new, old)))
    return f"all tensors: {what}", content


def _without(owner, key):
    if isinstance(owner, dict):
        del owner[key]
    return owner


def _new_tensor(value: Tensor | np.ndarray, chance: np.random.Generator) -> tuple[str, object]:
    if chance.random() < 0.1:
        new = _drawn(_NUMBERS, chance)
        return f"becomes {new!r}", new
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        return "becomes 0", np.zeros(3, np.float32)
    tensor = _torch(value)
    what, new = (_cast, _revalued, _reshaped, _reshaped)[int(chance.integers(4))](tensor, chance)
    return what, _like(new, value)


def _cast(tensor: Tensor, chance) -> tuple[str, Tensor]:
    what = str(chance.choice(list(_TYPES)))
    return f"as {what}", tensor.to(_TYPES[what])


def _reshaped(tensor: Tensor, chance) -> tuple[str, Tensor]:
    what = str(chance.choice(list(_SHAPES)))
    return what, _SHAPES[what](tensor)


def _revalued(tensor: Tensor, chance) -> tuple[str, Tensor]:
    table = _VALUES if tensor.is_floating_point() else _INTEGERS
    what = str(chance.choice(list(table)))
    return what, table[what](tensor) if tensor.dtype != torch.bool else ~tensor


def _torch(value: object) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))


def _like(tensor: Tensor, value: object) -> object:
    """The tensor in the kind of the value it replaces; numpy knows no bfloat16 and gets its bits."""
    if isinstance(value, Tensor):
        return tensor
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _new_number(value: object, chance: np.random.Generator) -> tuple[str, object]:
    if isinstance(value, bytes) and len(value) and chance.random() < 0.7:
        at = int(chance.integers(len(value)))
        new = _drawn(
            (value[:at], value + value[:at], b"", bytes(len(value)), b"\xff" * len(value), b"\x00\x7e" * (len(value) // 2)),
            chance,
        )
        return f"of {len(value)} bytes becomes one of {len(new)}", new
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.5:
        new = _drawn((value + 1, value - 1, value * 2, -value, value * 1000, value / 2, str(value)), chance)
    else:
        new = _drawn(_NUMBERS, chance)
    return f"= {value!r:.40} becomes {new!r:.40}", new
