"""Floor 9: ask a format about every law, without pytest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inrbridge.errors import unknown_name
from inrbridge.formats import Format
from inrbridge.testing.case import Absent, Broken, Case
from inrbridge.testing.laws import LAWS, wording

KEPT, BROKEN, SKIPPED = "kept", "broken", "skipped"


@dataclass(frozen=True)
class Result:
    """What came of one law: its name and wording, "kept", "broken" or "skipped", and why."""

    law: str
    wording: str
    outcome: str
    reason: str = ""


def check_conformance(
    format: Format,
    path: str | Path | None = None,
    *,
    options: Mapping[str, object] | None = None,
    laws: Iterable[str] | None = None,
) -> list[Result]:
    """Ask a format about the laws, all of them by default.

    Args:
        path: a file of the format; None takes the one that `format.example` writes.
        options: named options to open the file with.

    Returns:
        One result a law, in the order of the table.
    """
    names = list(LAWS) if laws is None else list(laws)
    for name in names:
        if name not in LAWS:
            raise unknown_name("law", name, LAWS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = format.example(Path(folder)) if path is None else Path(path)
        except Exception as error:
            reason = f"`example` raised {type(error).__name__}: {error}; write one, or name a file."
            return [Result(name, wording(name), BROKEN, reason) for name in names]
        case = Case(format, path, Path(folder), dict(options or {}))
        return [_ask(name, case) for name in names]


def _ask(name: str, case: Case) -> Result:
    outcome, reason = KEPT, ""
    try:
        LAWS[name](case)
    except Broken as error:
        outcome, reason = BROKEN, str(error)
    except Absent as error:
        outcome, reason = SKIPPED, str(error)
    except Exception as error:
        outcome, reason = BROKEN, f"raised {type(error).__name__}: {error}"
    return Result(name, wording(name), outcome, reason)
