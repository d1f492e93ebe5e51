"""Floor 7: nerfacc, imported where it is needed: rendering is an extra."""

from __future__ import annotations

from inrbridge.errors import MissingDependency


def nerfacc():
    """Return the module nerfacc.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import nerfacc
    except ImportError as error:
        raise MissingDependency('Rendering needs nerfacc: pip install "inrbridge[render]"') from error
    return nerfacc
