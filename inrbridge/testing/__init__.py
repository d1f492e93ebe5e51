"""Floor 9: the conformance kit, with which the author of a plugin checks a format. No pytest plugin: nothing is
imported into projects that do not ask for it.

    class TestSiren(FormatConformance):
        format = SirenFormat()
"""

from inrbridge.testing.checking import Result, check_conformance
from inrbridge.testing.damage import damaged
from inrbridge.testing.laws import LAWS
from inrbridge.testing.plugins import only_plugins

__all__ = ["LAWS", "FormatConformance", "Result", "check_conformance", "damaged", "only_plugins"]


def __getattr__(name: str):
    if name != "FormatConformance":
        raise AttributeError(f"module 'inrbridge.testing' has no attribute {name!r}")
    try:
        from inrbridge.testing.conformance import FormatConformance
    except ModuleNotFoundError as error:
        from inrbridge.errors import MissingDependency

        raise MissingDependency('FormatConformance needs pytest: pip install "inrbridge[dev]"') from error
    return FormatConformance
