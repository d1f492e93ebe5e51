"""Floor 9: the laws about the files of a format: which it claims, and that it opens them safely."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inrbridge import plugins
from inrbridge.errors import CannotOpen, CannotSave, InrBridgeError
from inrbridge.field import Stackable
from inrbridge.formats import Format, Probe
from inrbridge.testing.case import Absent, Case, equal, require
from inrbridge.testing.damage import damaged

_REBUILT_BYTES = 64 * 2**20  # a larger example is not written anew for the laws about damage and hidden code

VARIANTS = 48  # damaged variants of a file that law `survives_damage` tries


def recognizes_its_file(case: Case) -> None:
    """it recognizes its own file"""
    require(case.format.recognizes(Probe(case.path)) is True, f"`recognizes` did not return True for its own {case.path.name}.")


def declines_other_files(case: Case) -> None:
    """it declines junk, empty files, and the files of other formats"""
    for path, what in _strangers(case):
        try:
            claims = case.format.recognizes(Probe(path))
        except Exception as error:
            require(False, f"`recognizes` raised {type(error).__name__}: {error} for {what}; it must return False.")
        require(not claims, f"`recognizes` claims {what}; ask for metadata or tensor names that only this format writes.")


def _strangers(case: Case) -> Iterator[tuple[Path, str]]:
    folder = case.folder / "strangers"
    folder.mkdir(exist_ok=True)
    for suffix in dict.fromkeys((case.path.suffix, *case.format.suffixes, ".bin")):
        empty, junk, text = (folder / f"{word}{suffix}" for word in ("empty", "junk", "text"))
        empty.write_bytes(b"")
        yield empty, f"an empty {suffix} file"
        junk.write_bytes(np.random.default_rng(0).bytes(2000))
        yield junk, f"a {suffix} file of random bytes"
        text.write_text("a text that is no field\n" * 20)
        yield text, f"a {suffix} file of plain text"
    (folder / "hollow").mkdir(exist_ok=True)
    yield folder / "hollow", "an empty folder"
    yield folder, "a folder of other files"
    unrelated = {"embedding.table": torch.zeros(3, 2), "counts": torch.zeros(4)}
    save_file(unrelated, folder / "unrelated.safetensors")
    yield folder / "unrelated.safetensors", "a safetensors file of unrelated tensors"
    torch.save(unrelated, folder / "unrelated.pt")
    yield folder / "unrelated.pt", "a torch file of unrelated tensors"
    for other in _other_formats(case.format):
        place = folder / other.name
        place.mkdir(exist_ok=True)
        try:
            path = other.example(place)
        except Exception:  # that format's own laws say what is wrong with it
            continue
        yield path, f"a file of format {other.name}"


def _other_formats(format: Format) -> list[Format]:
    registry = plugins.registry()
    registry.load_all()
    names = [name for record in registry.records for name in record.formats]
    return [registry.loaded(name) for name in sorted(names) if name != format.name]


def refuses_hidden_code(case: Case) -> None:
    """it runs no code that a file hides in a pickle"""
    folder = case.folder / "traps"
    folder.mkdir(exist_ok=True)
    mark = folder / "executed"
    for path, what in _traps(case, folder):
        for look in (lambda path=path: case.format.recognizes(Probe(path)), lambda path=path: case.open(path)):
            with contextlib.suppress(Exception):  # refusing is right, in whatever words; law `reports_damage` judges the words
                look()
        ran = mark.exists()
        mark.unlink(missing_ok=True)
        advice = "read with torch.load(weights_only=True), numpy.load(allow_pickle=False), or inrbridge.read_tensors."
        require(not ran, f"opening {what} executed the code in it; {advice}")


class _Trap:
    """Pickles as a call that creates a file."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def _traps(case: Case, folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that hold the names of the format's own tensors and a trap, under its suffix and under that of the container."""
    trap, probe = _Trap(folder / "executed"), Probe(case.path)
    shapes = probe.tensors if sum(8 * int(np.prod(shape)) for shape in probe.tensors.values()) < _REBUILT_BYTES else {}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    arrays = {name.replace("/", "_"): np.array([trap], dtype=object) for name in (*shapes, "data")}
    writers = {
        ".pt": ("a torch file", lambda file: torch.save({**state, "extra": trap}, file)),
        ".pth": (
            "an old torch file",
            lambda file: torch.save({**state, "extra": trap}, file, _use_new_zipfile_serialization=False),
        ),
        ".pkl": ("a pickle", lambda file: pickle.dump({**state, "extra": trap}, file)),
        ".npy": ("an npy file", lambda file: np.save(file, arrays["data"], allow_pickle=True)),
        ".npz": ("an npz file", lambda file: np.savez(file, **arrays)),
    }
    for native, (what, write) in writers.items():
        for suffix in dict.fromkeys((case.path.suffix, native)):
            path = folder / f"trap{native[1:]}{suffix}"
            with path.open("wb") as file:
                write(file)
            yield path, f"{what} that holds an object"


def reports_damage(case: Case) -> None:
    """a damaged file raises CannotOpen"""
    case.field  # noqa: B018  a format that does not open its own file is judged elsewhere
    if case.path.is_dir():
        raise Absent("its files are folders, which the kit does not damage")
    for path, what in _damaged(case):
        if Probe(path).damage:  # the host sees it and never asks the format
            continue
        try:
            case.open(path)
        except CannotOpen:
            continue
        except Exception as error:
            require(False, f"{what} raised {type(error).__name__}: {error}; check first, and raise inrbridge.errors.CannotOpen.")
        require(False, f"{what} opened as if it were whole; compare what is there with what is expected, and raise CannotOpen.")


def _damaged(case: Case) -> Iterator[tuple[Path, str]]:
    folder = case.folder / "damaged"
    folder.mkdir(exist_ok=True)
    content = case.path.read_bytes()
    path = folder / f"short{case.path.suffix}"
    path.write_bytes(content[: len(content) * 3 // 5])
    yield path, "a file cut short"
    probe = Probe(case.path)
    if probe.magic == "safetensors" and probe.size < _REBUILT_BYTES and probe.tensors:
        state = load_file(case.path)
        with safe_open(case.path, "pt") as file:
            metadata = file.metadata()
        gone = max(state, key=lambda name: state[name].numel())
        path = folder / f"incomplete{case.path.suffix}"
        save_file({name: value for name, value in state.items() if name != gone}, path, metadata=metadata)
        yield path, f'a file without its tensor "{gone}"'


def survives_damage(case: Case) -> None:
    """a file damaged in any way opens as a field or raises one InrBridgeError"""
    case.field  # noqa: B018  as above
    if case.path.is_dir() or case.path.stat().st_size > _REBUILT_BYTES:
        raise Absent("its file is a folder, or too large to be damaged many times")
    for what, path in damaged(case.path, case.folder / "variants", count=VARIANTS):
        if Probe(path).damage:  # the host sees it and never asks the format
            continue
        try:
            case.open(path)
        except InrBridgeError:
            continue
        except Exception as error:
            advice = "check names, shapes and values first, and raise inrbridge.errors.CannotOpen."
            require(False, f"damage ({what}) raised {type(error).__name__}: {error}; {advice}")


def counts_its_fields(case: Case) -> None:
    """`count` tells how many fields a file holds, `open_all` reads them, and `index` chooses one"""
    case.field  # noqa: B018  as above
    try:
        count = case.format.count(Probe(case.path))
    except Exception as error:
        require(False, f"`count` raised {type(error).__name__}: {error}; it must return a number for its own file.")
    is_number = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    require(is_number, f"`count` returned {count!r}, expected a whole number of at least 1.")
    if "index" in case.options:  # one of them was asked for
        return
    require(count == 1 or "index" in case.format.options("open"), f"it counts {count} fields, and `open` has no option index.")
    fields = list(case.format.open_all(case.path, case.options))
    require(len(fields) == count, f"`open_all` gave {len(fields)} fields and `count` said {count}; correct one of them.")
    chosen = [{}] if count == 1 else [{"index": index} for index in (0, count - 1)]
    for own, field in zip(chosen, (fields[0], fields[-1]), strict=False):
        alone = case.format.open(case.path, **case.options, **own)
        same = equal(field, case.points(), alone) or not equal(alone, case.points(), alone)
        require(same, f"`open_all` and `open` with {own or 'no index'} gave different fields; keep the order of the file.")


def saves_what_it_opens(case: Case) -> None:
    """a field that is saved and opened again has the same values, domain and channels"""
    field = case.steady_field
    if not isinstance(field, Stackable) and type(case.format).save is Format.save:
        raise Absent("its fields say no `architecture`, so that inrbridge's own container cannot hold them")
    path = case.folder / f"saved{'.safetensors' if type(case.format).save is Format.save else case.path.suffix}"
    try:
        case.format.save(field, path)
    except CannotSave as error:
        raise Absent(f"it does not save: {error}") from error
    try:
        again = case.format.open(path)
    except Exception as error:
        require(False, f"what it saved does not open ({type(error).__name__}: {error}); read it with inrbridge.read_native.")
    require(again.domain == field.domain, f"it was saved on {field.domain} and opened on {again.domain}; store the domain.")
    require(again.channels == field.channels, f"it was saved with {field.channels} channels and opened with {again.channels}.")
    require(
        equal(again, case.points(), field), "a saved field opens with other values; keep all that evaluation needs in its state."
    )


def builds_anew(case: Case) -> None:
    """`build` with the field's `architecture` gives the same shape of field, drawn from the generator alone"""
    if "build" not in case.format.abilities():
        raise Absent("it builds no fresh fields")
    field = case.field
    architecture = dict(field.architecture) if isinstance(field, Stackable) else {}
    try:
        kept = json.loads(json.dumps(architecture))
    except TypeError as error:
        require(False, f"its `architecture` is no JSON ({error}); use numbers, texts and lists.")
    before = torch.random.get_rng_state()
    try:
        first, second = (
            case.format.build(field.domain, field.channels, generator=torch.Generator().manual_seed(3), **kept) for _ in range(2)
        )
    except Exception as error:
        require(
            False, f"`build` with its `architecture` raised {type(error).__name__}: {error}; take each key as a named option."
        )
    require(
        torch.equal(before, torch.random.get_rng_state()), "`build` draws from the global generator; use the one it is given."
    )
    require((first.domain, first.channels) == (field.domain, field.channels), "`build` changed the domain or the channels.")
    advice = "draw from the generator alone."
    if not isinstance(field, Stackable):
        same = equal(first, case.points(), second)
        require(same, f"`build` with equally seeded generators gave different fields; {advice}")
        return
    states = [built.state_dict() for built in (first, second)]
    same = all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    require(same, f"`build` with equally seeded generators gave different tensors; {advice}")
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in (states[0], field.state_dict())]
    require(
        shapes[0] == shapes[1], "`build` with its `architecture` has other tensors than the opened field; correct `architecture`."
    )


FILE_LAWS = (
    recognizes_its_file, declines_other_files, refuses_hidden_code, reports_damage, survives_damage, counts_its_fields,
    saves_what_it_opens, builds_anew,
)  # fmt: skip
