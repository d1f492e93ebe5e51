"""Floor 9: the laws as a pytest class, the whole test file of a plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from inrbridge.formats import Format
from inrbridge.testing.case import Absent, Broken, Case
from inrbridge.testing.laws import LAWS, wording


class FormatConformance:
    """Subclass it as `TestMyFormat` with `format = MyFormat()`: one test a law.

    Write the fixture `checkpoint` where `Format.example` writes no file of its own, and `options` for a file that
    must be opened with some. A law may be overridden only with `@pytest.mark.xfail(reason=...)`.
    """

    format: ClassVar[Format]
    options: ClassVar[Mapping[str, object]] = {}

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        """Return the path of a small file of the format."""
        return self.format.example(tmp_path)

    @pytest.fixture
    def case(self, checkpoint: Path, tmp_path: Path) -> Case:
        """Return what the laws are asked about."""
        return Case(self.format, checkpoint, tmp_path, dict(self.options))

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in LAWS:
            own = vars(cls).get(f"test_{name}")
            marks = getattr(own, "pytestmark", [])
            if own is not None and not any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks):
                raise TypeError(f"{cls.__name__} overrides the law {name}; mark it @pytest.mark.xfail(reason=...) and say why.")


def _as_test(name: str):
    def test(self, case: Case):
        __tracebackhide__ = True
        try:
            LAWS[name](case)
        except Absent as reason:
            pytest.skip(str(reason))
        except Broken as error:
            pytest.fail(str(error), pytrace=False)

    test.__name__, test.__doc__ = f"test_{name}", wording(name)
    return test


for _name in LAWS:
    setattr(FormatConformance, f"test_{_name}", _as_test(_name))
