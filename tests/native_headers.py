"""The header of a native file, edited as somebody might."""

import json

from safetensors import safe_open
from safetensors.torch import load_file, save_file


def rewrite(file, change):
    """Write the file anew with another header."""
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["inrbridge"])
    change(header)
    save_file(load_file(file), file, metadata={"inrbridge": json.dumps(header)})
    return file
