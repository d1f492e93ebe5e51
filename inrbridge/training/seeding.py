"""Floor 8: randomness as a pure function of (seed, purpose, position).

Nothing draws from a stream that must be saved: the generator of step 17 is derived from the seed and 17. A resumed run,
and any number of processes, therefore see the same minibatches, points and dropout as one uninterrupted process.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: object) -> int:
    """Return a seed in [0, 2^63) for one purpose.

    >>> derive(0, "points", 1) != derive(0, "points", 2) and derive(0, "order") == derive(0, "order")
    True
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator for one purpose, e.g. `generator(0, "points", step)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
