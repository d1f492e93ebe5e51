"""Floor 5: the layers of an INR-Net. Each maps Sampled to a new Sampled; its points may be any discretization of a domain."""

from inrbridge.nn.attention import PointAttention
from inrbridge.nn.bases import FourierBasis, LegendreBasis, ProductBasis, basis_for, expand, legendre, project
from inrbridge.nn.conv import BasisConv, Conv, MLPConv
from inrbridge.nn.dropout import Dropout, PointDropout, use_generator
from inrbridge.nn.harmonics import SphericalHarmonics, ZernikeBasis
from inrbridge.nn.linear import Activation, Linear, PositionalEncoding
from inrbridge.nn.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from inrbridge.nn.own_points import Resample
from inrbridge.nn.pooling import AdaptiveAvgPool, AvgPool, GlobalIntegral, LogMeanExpPool, MaxPool, NormPool
from inrbridge.nn.resample import Downsample, Upsample
from inrbridge.nn.residual import Residual, Sequential, add, concat
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.splines import SplineBasis
from inrbridge.nn.tokens import Tokenize
from inrbridge.nn.transformer import TransformerBlock

__all__ = [
    "Activation",
    "AdaptiveAvgPool",
    "AvgPool",
    "BasisConv",
    "BatchNorm",
    "Conv",
    "Downsample",
    "Dropout",
    "FourierBasis",
    "GlobalIntegral",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LegendreBasis",
    "Linear",
    "LogMeanExpPool",
    "MLPConv",
    "MaxPool",
    "NormPool",
    "PointAttention",
    "PointDropout",
    "PositionalEncoding",
    "ProductBasis",
    "Resample",
    "Residual",
    "Sampled",
    "Sequential",
    "SphericalHarmonics",
    "SplineBasis",
    "Tokenize",
    "TransformerBlock",
    "Upsample",
    "ZernikeBasis",
    "add",
    "basis_for",
    "concat",
    "expand",
    "legendre",
    "project",
    "use_generator",
]
