"""Floor 2: write a file or a folder whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from inrbridge.errors import CannotSave, InrBridgeError


@contextmanager
def written_whole(path: Path, error: type[InrBridgeError] = CannotSave) -> Iterator[Path]:
    """Give a temporary path beside `path` for a file or a folder, which takes its place when the block ends.

    A crash leaves the old one or the new one, and a failure no trace.

    Raises:
        error: the block, or the file system, failed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as failure:
        raise error(
            f"Cannot write {path} ({failure}); make room, or choose a folder that is there and has room; what was there is whole."
        ) from failure
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
