"""What becomes of a file from a stranger: a field, a refusal, or something that must not happen."""

from __future__ import annotations

import resource
import signal
import time
import traceback
import tracemalloc
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from inrbridge import identify, open_field, plugins
from inrbridge.errors import InrBridgeError

SECONDS, MEBIBYTES = 15, 64  # of an attack
OUTCOMES = ("field", "refused", "LEAK", "HANG", "MEMORY")


@dataclass(frozen=True)
class Outcome:
    """One of OUTCOMES, what it rests on (the head of a traceback, or a sentence), and the seconds it took."""

    kind: str
    reason: str = ""
    seconds: float = 0.0


class Hang(BaseException):
    """The time is over; no `except Exception` catches it."""


@contextmanager
def time_limit(seconds: float):
    """Raise Hang in the block when it has used so many seconds of the processor (main thread only)."""

    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory(mebibytes: int) -> None:
    """Let this process take no more address space than it has now and `mebibytes`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def judge(path: Path, format: str, seconds: float = 10.0) -> Outcome:
    """Identify the file, open it (as `format` where nobody claims it) and evaluate 8 points.

    A format that raises anything but an InrBridgeError leaks, also where the host tells it as CannotOpen; so does a warning.
    """
    plugins.registry().reported.clear()
    start, reason = time.perf_counter(), ""
    try:
        with time_limit(seconds), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                _look_and_evaluate(path, format)
                kind = "field"
            except InrBridgeError as error:
                kind, reason = "refused", str(error)
                if _ran_out_of_memory(error):
                    kind = "MEMORY"
                elif _is_wrapped(error):
                    kind, reason = "LEAK", _head(error.__cause__)
        if told and kind in ("field", "refused"):
            kind, reason = "LEAK", f"{told[0].category.__name__} at {told[0].filename}:{told[0].lineno}: {told[0].message}"
    except Hang as error:
        kind, reason = "HANG", _head(error)
    except MemoryError as error:
        kind, reason = "MEMORY", _head(error)
    except Exception as error:
        kind, reason = "MEMORY" if _ran_out_of_memory(error) else "LEAK", _head(error)
    return Outcome(kind, reason, time.perf_counter() - start)


def _look_and_evaluate(path: Path, format: str) -> None:
    try:
        named = identify(path)
    except InrBridgeError:
        named = format
    field = open_field(path, format=named)
    unit = torch.rand(8, field.domain.unit_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        values = field(field.domain.from_unit(unit).float())
    assert values.shape == (8, field.channels), f"8 points gave values of shape {tuple(values.shape)}, {field.channels} channels"


def _is_wrapped(error: InrBridgeError) -> bool:
    """Whether the host told an error of another kind, as `open_field` does for what a format raises."""
    return error.__cause__ is not None and not isinstance(error.__cause__, InrBridgeError | OSError)


def _ran_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "not enough memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _head(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "inrbridge" in frame.filename] or frames
    places = " < ".join(f"{Path(f.filename).parent.name}/{Path(f.filename).name}:{f.lineno} {f.name}" for f in own[:-5:-1])
    return f"{type(error).__name__}: {str(error)[:200]} | {places}"


def cheap(look, mebibytes=MEBIBYTES):
    """What `look` returns; it must not take long, nor much memory on the way."""
    tracemalloc.start()
    try:
        with time_limit(SECONDS):
            found = look()
        peak = tracemalloc.get_traced_memory()[1]
    except Hang:
        pytest.fail(f"took more than {SECONDS} s")
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * 2**20, f"took {peak >> 20} MiB"
    return found
