"""Floor 8: resumable checkpoints `step-N/`: weights, optimizer state and position, without pickles.

    step-000120/model.safetensors       the weights
    step-000120/optimizer.safetensors   tensors "<parameter>.<name>" of the optimizer
    step-000120/state.json              step, the optimizer's other values, and what the loop adds

Randomness needs no state of its own: it is derived from seed and step (`seeding.py`). A folder is written under a temporary
name and renamed when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inrbridge.errors import CannotOpen
from inrbridge.writing import written_whole

STEP_NAME = re.compile(r"step-(\d+)")


def save_step(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: Mapping, keep: int) -> Path:
    """Write `folder/step-N` and delete all but the newest `keep`; `extra` is JSON for `load_step` to give back."""
    target = folder / f"step-{step:06d}"
    tensors, plain = _flatten(optimizer.state_dict())
    with written_whole(target) as temporary:
        temporary.mkdir(parents=True)
        save_tensors(temporary / "model.safetensors", model.state_dict())
        save_tensors(temporary / "optimizer.safetensors", tensors)
        (temporary / "state.json").write_text(json.dumps({"step": step, "optimizer": plain, **extra}), encoding="utf-8")
    for old in steps_of(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def steps_of(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    found = [(int(match[1]), path) for path in Path(folder).glob("step-*") if (match := STEP_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def load_step(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Bring model and optimizer into the state of a checkpoint; return its `state.json`.

    Raises:
        CannotOpen: a file is missing, damaged, or belongs to another model.
    """
    remedy = f"delete {path} to go on from the checkpoint before, or start anew in another run.out."
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        load_tensors_into(model, path / "model.safetensors")
        optimizer.load_state_dict(_unflatten(load_file(path / "optimizer.safetensors"), state["optimizer"]))
        return {**state, "step": int(state["step"])}
    except CannotOpen as error:
        raise CannotOpen(f"{error} To go on: {remedy}") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CannotOpen(f"The checkpoint {path} is damaged ({type(error).__name__}: {error}); {remedy}") from error


def save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; tied ones are written once for each name."""
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, path)


def load_tensors_into(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into a model; names and shapes must agree.

    Raises:
        CannotOpen: the file is missing, damaged, or holds other tensors than the model.
    """
    compare_tensors(model, path)
    with _readable(path):
        model.load_state_dict(load_file(path))


def compare_tensors(model: nn.Module, path: Path) -> None:
    """Compare a model, which may be on the meta device, with the header of a safetensors file.

    Raises:
        CannotOpen: the file is missing, damaged, or holds other tensors than the model.
    """
    with _readable(path), safe_open(path, framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if wanted != found:
        differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        shown = ", ".join(f"{name}: {found.get(name, 'absent')} for {wanted.get(name, 'nothing')}" for name in differing[:4])
        raise CannotOpen(
            f"{path} holds other tensors than the model {type(model).__name__} ({shown}), expected the same names and shapes; "
            "build the model with the options it was trained with."
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CannotOpen(f"{path} cannot be read ({error}), expected the weights of a model; copy or train it again.") from error


def _flatten(state: Mapping) -> tuple[dict[str, Tensor], dict]:
    """Part an optimizer's state dict into named tensors and JSON."""
    tensors, values = {}, {}
    for parameter, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{name}"] = value
            else:
                values[f"{parameter}.{name}"] = value
    return tensors, {"param_groups": state["param_groups"], "values": values}


def _unflatten(tensors: Mapping[str, Tensor], plain: Mapping) -> dict:
    state: dict[int, dict] = {}
    for key, value in [*tensors.items(), *plain["values"].items()]:
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    return {"state": state, "param_groups": plain["param_groups"]}
