"""Floor 4: fields made of fields: other coordinates, a smaller domain, other channels, derivatives.

A `Transform` changes the coordinates, asks the field inside, and changes the values: g(x) = V(f(M(x))). Transforms with
equal `signature` do the same to any field, so a stack takes them off, evaluates the fields inside in one batched call,
and puts them on again once for the whole group. All are pointwise and differentiable in the coordinates.
`augmentation` is made of them.
"""

from inrbridge.transforms import augmentation
from inrbridge.transforms.base import Ranged, Transform, channel_ranges
from inrbridge.transforms.channels import ConcatChannels, MapChannels, MixChannels, SelectChannels
from inrbridge.transforms.coordinates import AffineField, PermuteAxes, RestrictField, SliceField, rescale
from inrbridge.transforms.derivatives import DerivativeField, DivergenceField, GradientField, HessianField, LaplacianField
from inrbridge.transforms.directions import FixedDirection, IgnoreDirections, MeanOverDirections, has_directions
from inrbridge.transforms.matter import WithOccupancy
from inrbridge.transforms.warping import NoisyField, WarpField

__all__ = [
    "AffineField",
    "ConcatChannels",
    "DerivativeField",
    "DivergenceField",
    "FixedDirection",
    "GradientField",
    "HessianField",
    "IgnoreDirections",
    "LaplacianField",
    "MapChannels",
    "MeanOverDirections",
    "MixChannels",
    "NoisyField",
    "PermuteAxes",
    "Ranged",
    "RestrictField",
    "SelectChannels",
    "SliceField",
    "Transform",
    "WarpField",
    "WithOccupancy",
    "augmentation",
    "channel_ranges",
    "has_directions",
    "rescale",
]
