"""Floor 4: fields made of fields: other coordinates, a smaller domain, other channels.

A `Transform` changes the coordinates, asks the field inside, and changes the values: g(x) = V(f(M(x))). Transforms with
equal `signature` do the same to any field, so a stack takes them off, evaluates the fields inside in one batched call,
and puts them on again once for the whole group. All are pointwise and differentiable in the coordinates.
"""

from inrbridge.transforms.base import Ranged, Transform, channel_ranges
from inrbridge.transforms.channels import ConcatChannels, MapChannels, MixChannels, SelectChannels
from inrbridge.transforms.coordinates import AffineField, PermuteAxes, RestrictField, SliceField, rescale
from inrbridge.transforms.directions import FixedDirection, IgnoreDirections, MeanOverDirections, has_directions
from inrbridge.transforms.matter import WithOccupancy

__all__ = [
    "AffineField",
    "ConcatChannels",
    "FixedDirection",
    "IgnoreDirections",
    "MapChannels",
    "MeanOverDirections",
    "MixChannels",
    "PermuteAxes",
    "Ranged",
    "RestrictField",
    "SelectChannels",
    "SliceField",
    "Transform",
    "WithOccupancy",
    "channel_ranges",
    "has_directions",
    "rescale",
]
