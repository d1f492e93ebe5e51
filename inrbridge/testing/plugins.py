"""Floor 9: decide in a test which installed plugins there are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from inrbridge import plugins


@contextmanager
def only_plugins(*names: str) -> Iterator[plugins.Registry]:
    """Let the host see these installed plugins alone (none without a name), and a fresh registry, until the block ends.

    >>> with only_plugins() as registry:
    ...     [format.name for format in registry.all()]
    ['grid']
    """
    before = plugins._registry
    with mock.patch.dict(os.environ, {"INRBRIDGE_PLUGINS": ",".join(names)}):
        try:
            yield plugins.rescan()
        finally:
            plugins._registry = before
