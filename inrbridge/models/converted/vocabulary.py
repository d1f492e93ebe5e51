"""Floor 6: the words that a program may use: the modules, functions and methods of torch that a converted net is made of.

A program comes from a file, and a file must not run code: it can only name what stands here.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from inrbridge.errors import ConfigError
from inrbridge.models.converted.arguments import references


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _each_dim(name: str, options: str, dims=(1, 2, 3)) -> dict[str, tuple[str, ...]]:
    return {f"{name}{n}d": _words(options) for n in dims}


_TEXTS = _words("padding padding_mode mode approximate activation")  # options that may be text
_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_NORM = "num_features eps momentum affine track_running_stats"
_IN_PLACE = _words("ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid")

# class -> names of its constructor's arguments, each also an attribute ("bias": whether there is one)
MODULE_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_words("Identity Sigmoid Tanh LogSigmoid Softsign Tanhshrink Softmax2d"), ()),
    **dict.fromkeys(_IN_PLACE, ("inplace",)),
    **dict.fromkeys(("ELU", "CELU"), ("alpha", "inplace")),
    **dict.fromkeys(("Softshrink", "Hardshrink"), ("lambd",)),
    **dict.fromkeys(("GLU", "Softmax", "LogSoftmax"), ("dim",)),
    **dict.fromkeys(_words("Dropout AlphaDropout FeatureAlphaDropout Dropout1d Dropout2d Dropout3d"), ("p", "inplace")),
    **dict.fromkeys(("UpsamplingNearest2d", "UpsamplingBilinear2d"), ("size", "scale_factor")),
    "GELU": ("approximate",),
    "Hardtanh": ("min_val", "max_val", "inplace"),
    "LeakyReLU": ("negative_slope", "inplace"),
    "PReLU": ("num_parameters",),
    "RReLU": ("lower", "upper", "inplace"),
    "Softplus": ("beta", "threshold"),
    "Threshold": ("threshold", "value", "inplace"),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "Linear": ("in_features", "out_features", "bias"),
    "Bilinear": ("in1_features", "in2_features", "out_features", "bias"),
    "Embedding": _words("num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "RMSNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    "LocalResponseNorm": ("size", "alpha", "beta", "k"),
    "SyncBatchNorm": _words(_NORM),
    "PixelShuffle": ("upscale_factor",),
    "PixelUnshuffle": ("downscale_factor",),
    "ChannelShuffle": ("groups",),
    "Upsample": ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
    "AvgPool1d": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    **_each_dim("AvgPool", "kernel_size stride padding ceil_mode count_include_pad divisor_override", (2, 3)),
    **_each_dim("Conv", _CONV),
    **_each_dim("ConvTranspose", f"{_CONV} output_padding"),
    **_each_dim("BatchNorm", _NORM),
    **_each_dim("InstanceNorm", _NORM),
    **_each_dim("MaxPool", "kernel_size stride padding dilation return_indices ceil_mode"),
    **_each_dim("MaxUnpool", "kernel_size stride padding"),
    **_each_dim("LPPool", "norm_type kernel_size stride ceil_mode"),
    **_each_dim("AdaptiveAvgPool", "output_size"),
    **_each_dim("AdaptiveMaxPool", "output_size"),
    **_each_dim("ZeroPad", "padding"),
    **_each_dim("ReflectionPad", "padding"),
    **_each_dim("ReplicationPad", "padding"),
    **_each_dim("CircularPad", "padding"),
    **_each_dim("ConstantPad", "padding value"),
}

_POINTWISE = _words(
    "relu relu6 elu celu selu gelu silu mish hardswish hardsigmoid hardtanh leaky_relu rrelu sigmoid tanh logsigmoid softplus "
    "softsign tanhshrink softshrink hardshrink threshold relu_ elu_ celu_ selu_ leaky_relu_ hardtanh_ threshold_"
)
_DROPOUTS = _words("dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout")
_WITH_INDICES = tuple(f"max_{kind}" for n in (1, 2, 3) for kind in (f"pool{n}d_with_indices", f"unpool{n}d"))
_FUNCTIONAL = _words(
    "prelu linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d batch_norm instance_norm "
    "group_norm layer_norm rms_norm local_response_norm normalize max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d "
    "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d lp_pool1d lp_pool2d interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle pad unfold "
    "softmax log_softmax glu scaled_dot_product_attention one_hot embedding"
)
_TORCH_POINTWISE = _words(
    "add sub mul div true_divide floor_divide remainder pow neg abs sign exp expm1 log log1p log2 log10 sqrt rsqrt square sin "
    "cos tan asin acos atan atan2 sinh cosh tanh erf sigmoid relu reciprocal clamp clamp_min clamp_max minimum maximum floor "
    "ceil round addcmul addcdiv lerp where eq ne lt le gt ge logical_and logical_or logical_not isnan nan_to_num rsub"
)
_TORCH = _words(
    "cat concat concatenate stack split chunk unbind flatten reshape permute transpose swapaxes movedim squeeze unsqueeze "
    "mean sum amax amin max min var std var_mean std_mean softmax log_softmax cumsum prod matmul bmm einsum baddbmm addmm "
    "roll flip narrow select index_select gather tile repeat_interleave zeros_like ones_like full_like empty_like rand_like "
    "randn_like unflatten broadcast_to norm argmax mv dot vdot tensor_split triu tril outer numel is_floating_point"
)
# what makes tensors: of a size, or by chance
_FACTORIES = _words("zeros ones full empty arange linspace eye rand randn randint randperm")
_OPERATORS = _words("add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ invert iadd isub imul itruediv")
_IN_PLACE_METHODS = _words("add_ sub_ mul_ div_ relu_ clamp_ sigmoid_ tanh_ floor_")
_OTHER_METHODS = _words(
    "view view_as reshape_as expand expand_as repeat contiguous to float half bfloat16 double size dim shape new_zeros new_ones "
    "new_full new_empty clone detach t bernoulli_ unfold"
)

FUNCTIONS: dict[str, Callable] = {
    **{f"functional.{name}": getattr(functional, name) for name in (*_POINTWISE, *_DROPOUTS, *_FUNCTIONAL, *_WITH_INDICES)},
    **{f"torch.{name}": getattr(torch, name) for name in (*_TORCH_POINTWISE, *_TORCH, *_FACTORIES)},
    "torch._weight_norm": torch._weight_norm,
    "linalg.vector_norm": torch.linalg.vector_norm,
    **{f"operator.{name}": getattr(operator, name) for name in (*_OPERATORS, "matmul", "getitem")},
    **{f"math.{name}": getattr(math, name) for name in ("sqrt", "ceil", "floor", "prod")},
    **{name: getattr(builtins, name) for name in ("int", "float", "min", "max", "abs", "round")},
}
_METHODS = (*_TORCH_POINTWISE, *_TORCH, *_IN_PLACE_METHODS, *_OTHER_METHODS, "masked_fill", "type_as")
METHODS = frozenset(("shape", *(name for name in _METHODS if callable(getattr(torch.Tensor, name, None)))))

# what acts on each value by itself
POINTWISE = frozenset(
    (
        *(f"functional.{name}" for name in _POINTWISE),
        *(f"torch.{name}" for name in _TORCH_POINTWISE),
        *(f"operator.{name}" for name in _OPERATORS),
    )
)
POINTWISE_METHODS = frozenset((*_TORCH_POINTWISE, *_IN_PLACE_METHODS, "masked_fill"))
POINTWISE_MODULES = frozenset(
    (
        *_IN_PLACE,
        *_words(
            "Identity Sigmoid Tanh LogSigmoid Softsign Tanhshrink ELU CELU Softshrink Hardshrink GELU Hardtanh LeakyReLU RReLU"
        ),
        *_words("Softplus Threshold Dropout AlphaDropout"),
    )
)
FACTORIES = frozenset(f"torch.{name}" for name in _FACTORIES)

# several names of torch lead to one object, and functions of torch.nn.functional are wrapped: the first name of each counts
_NAME_OF: dict[int, str] = {}
for _name, _function in FUNCTIONS.items():
    _NAME_OF.setdefault(id(_function), _name)
_TORCH_MODULES = ("torch._C._nn", "torch._C._special", "torch", "torch.nn.functional", "torch._tensor")


def function_name(function: Callable) -> str | None:
    """Return the word for a function, or None where a program has none."""
    if id(function) in _NAME_OF:
        return _NAME_OF[id(function)]
    name = getattr(function, "__name__", "")  # torch has functions of one name in several places, as torch._C._nn.gelu
    if getattr(function, "__module__", "") not in _TORCH_MODULES:
        return None
    return next((word for word in (f"functional.{name}", f"torch.{name}") if word in FUNCTIONS), None)


def module_name(module: nn.Module) -> str | None:
    """Return the word for a module, or None: it must be of torch's very class, since a subclass may compute anything."""
    name = type(module).__name__
    known = name in MODULE_OPTIONS or name in _COMPOUND
    return name if known and type(module) is getattr(nn, name) else None


def module_options(module: nn.Module) -> dict:
    """Return the constructor's arguments of a module, as JSON values."""
    name = type(module).__name__
    if name in _COMPOUND:
        return _COMPOUND[name][0](module)
    options = {option: getattr(module, option) for option in MODULE_OPTIONS[name]}
    if "bias" in options:
        options["bias"] = module.bias is not None
    return options


def check_options(name: str, options: dict) -> None:
    """Raise unless a file's description of a module is one that `module_options` may have given.

    Raises:
        KeyError, TypeError, ValueError: it is not.
    """
    if name not in _COMPOUND and set(options) - set(MODULE_OPTIONS[name]):
        raise ValueError(f"{name} has no options {sorted(set(options) - set(MODULE_OPTIONS[name]))}")
    list(references(list(options.values())))
    texts = [option for option, value in options.items() if isinstance(value, str) and option not in _TEXTS]
    if texts:
        raise ValueError(f"{name} has text for {texts}")


def build_module(name: str, options: dict) -> nn.Module:
    """Build a module of torch; its weights are of no account."""
    return _COMPOUND[name][1](options) if name in _COMPOUND else getattr(nn, name)(**options)


def _attention_options(module: nn.MultiheadAttention) -> dict:
    plain = {
        name: getattr(module, name)
        for name in ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
    }
    return plain | {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}


def _encoder_layer_options(module: nn.TransformerEncoderLayer) -> dict:
    activation = module.activation
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__).lower()
    if name not in ("relu", "gelu"):
        raise ConfigError(f"Got a TransformerEncoderLayer with the activation {name}, expected relu or gelu.")
    return {"d_model": module.self_attn.embed_dim, "nhead": module.self_attn.num_heads, "dropout": module.dropout.p,
            "dim_feedforward": module.linear1.out_features, "activation": name, "layer_norm_eps": module.norm1.eps,
            "batch_first": module.self_attn.batch_first, "norm_first": module.norm_first,
            "bias": module.linear1.bias is not None}  # fmt: skip


def _encoder_options(module: nn.TransformerEncoder) -> dict:
    norm = None if module.norm is None else {"name": type(module.norm).__name__, "options": module_options(module.norm)}
    return {"layer": _encoder_layer_options(module.layers[0]), "count": len(module.layers), "norm": norm}


def _build_encoder(options: dict) -> nn.TransformerEncoder:
    norm = options["norm"] and build_module(options["norm"]["name"], options["norm"]["options"])
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**options["layer"]), options["count"], norm, enable_nested_tensor=False
    )


_COMPOUND = {  # modules whose arguments are not their attributes: read them, build with them
    "MultiheadAttention": (_attention_options, lambda options: nn.MultiheadAttention(**options)),
    "TransformerEncoderLayer": (_encoder_layer_options, lambda options: nn.TransformerEncoderLayer(**options)),
    "TransformerEncoder": (_encoder_options, _build_encoder),
}
