"""Floor 5: the layers of an INR-Net. Each maps Sampled to a new Sampled; its points may be any discretization of a domain."""

from inrbridge.nn.adaptive import AdaptiveInstanceNorm
from inrbridge.nn.attention import PointAttention
from inrbridge.nn.bases import (
    FourierBasis,
    LegendreBasis,
    OrthonormalizedBasis,
    ProductBasis,
    basis_for,
    expand,
    legendre,
    project,
)
from inrbridge.nn.channel_attention import ChannelAttention
from inrbridge.nn.conv import BasisConv, Conv, MLPConv
from inrbridge.nn.derivatives import Derivative, Divergence, Gradient, Hessian, Laplacian
from inrbridge.nn.dropout import Dropout, PointDropout, use_generator
from inrbridge.nn.functions import (
    BasisFunction,
    Decode,
    InnerProduct,
    MLPFunction,
    Modulate,
    ParametricFunction,
    Shift,
    parametric,
)
from inrbridge.nn.harmonics import SphericalHarmonics, ZernikeBasis
from inrbridge.nn.linear import Activation, Linear, PositionalEncoding
from inrbridge.nn.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from inrbridge.nn.own_points import Resample
from inrbridge.nn.pairs import BilinearPair, ConcatPair, InnerProductPair, ProductPair, brought_to
from inrbridge.nn.pooling import AdaptiveAvgPool, AvgPool, GlobalIntegral, LogMeanExpPool, MaxPool, NormPool
from inrbridge.nn.resample import Downsample, Upsample
from inrbridge.nn.residual import Residual, Sequential, add, concat
from inrbridge.nn.sampled import Sampled
from inrbridge.nn.splines import SplineBasis
from inrbridge.nn.tokens import Tokenize
from inrbridge.nn.transformer import TransformerBlock
from inrbridge.nn.warp import Warp

__all__ = [
    "Activation",
    "AdaptiveAvgPool",
    "AdaptiveInstanceNorm",
    "AvgPool",
    "BasisConv",
    "BasisFunction",
    "BatchNorm",
    "BilinearPair",
    "ChannelAttention",
    "ConcatPair",
    "Conv",
    "Decode",
    "Derivative",
    "Divergence",
    "Downsample",
    "Dropout",
    "FourierBasis",
    "GlobalIntegral",
    "Gradient",
    "GroupNorm",
    "Hessian",
    "InnerProduct",
    "InnerProductPair",
    "InstanceNorm",
    "Laplacian",
    "LayerNorm",
    "LegendreBasis",
    "Linear",
    "LogMeanExpPool",
    "MLPConv",
    "MLPFunction",
    "MaxPool",
    "Modulate",
    "NormPool",
    "OrthonormalizedBasis",
    "ParametricFunction",
    "PointAttention",
    "PointDropout",
    "PositionalEncoding",
    "ProductBasis",
    "ProductPair",
    "Resample",
    "Residual",
    "Sampled",
    "Sequential",
    "Shift",
    "SphericalHarmonics",
    "SplineBasis",
    "Tokenize",
    "TransformerBlock",
    "Upsample",
    "Warp",
    "ZernikeBasis",
    "add",
    "basis_for",
    "brought_to",
    "concat",
    "expand",
    "legendre",
    "parametric",
    "project",
    "use_generator",
]
