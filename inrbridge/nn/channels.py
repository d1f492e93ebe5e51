"""Floor 5: the one check that every layer with parameters makes: does the input have the channels it was built for?"""

from __future__ import annotations

from inrbridge.errors import ShapeMismatch
from inrbridge.nn.sampled import Sampled


def check_channels(sampled: Sampled, channels: int, layer: str) -> None:
    """Raise ShapeMismatch unless the values are (b, n, channels)."""
    if sampled.channels != channels:
        raise ShapeMismatch(
            f"Got {sampled.channels} channels in {layer}, expected {channels}; build the layer for "
            f"in_channels={sampled.channels}, or put a Linear({sampled.channels}, {channels}) before it."
        )
