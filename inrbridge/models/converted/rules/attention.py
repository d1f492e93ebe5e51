"""Floor 6: products: channels of each point by matrices, and tokens that attend to each other under the quadrature weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from inrbridge.models.converted.located import Located, NeedsGrid, Withheld
from inrbridge.models.converted.rules.table import Run, rule
from inrbridge.nn.weights import has_equal_weights


@rule("Linear")
def _linear_module(run: Run, module, input):
    return linear(run, input, module.weight, module.bias)


@rule("functional.linear")
def linear(run: Run, input, weight, bias=None):
    """Mix the channels of each point."""
    if input.axis == input.values.ndim - 1:
        raise NeedsGrid(input.level, "it has a weight for each pixel")
    return input.with_values(functional.linear(input.values, weight, bias))


@rule("torch.matmul", ".matmul", "operator.matmul", "torch.bmm", ".bmm")
def matmul(run: Run, input, other):
    """Multiply the channels of each point by a matrix, from either side."""
    if isinstance(input, Located) and isinstance(other, Tensor):
        last = input.values.ndim - 1
        if (input.axis == last - 1 and input.spread == 1) or (input.axis < last and other.ndim <= 2):
            return input.with_values(input.values @ other)
    elif isinstance(input, Tensor):
        last = other.values.ndim - 1
        if other.axis == last and other.spread == 1 and input.ndim > 1:
            return other.with_values(input @ other.values)
    level = next(x.level for x in (input, other) if isinstance(x, Located))
    raise NeedsGrid(level, "it multiplies pixels with pixels; attention on points is scaled_dot_product_attention")


def _log_weights(keys: Located, like: Tensor) -> Tensor | None:
    """What is added to the logits of the n keys (n,): they stand for as much of the domain as they weigh."""
    if has_equal_weights(keys.level.points):
        return None
    weights = keys.level.points.weights.double()
    return (weights / weights.max()).log().to(like)


@rule("functional.scaled_dot_product_attention")
def attention(run: Run, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Attention of (.., n, c) tokens: sums over keys are integrals."""
    if attn_mask is not None or is_causal or enable_gqa or not all(isinstance(x, Located) for x in (query, key, value)):
        level = next(x.level for x in (query, key, value) if isinstance(x, Located))
        raise NeedsGrid(level, "its attention has a mask, or tokens that are no points")
    if any((not x.tokens and x.spread > 1) or x.axis != x.values.ndim - 2 for x in (query, key, value)):
        raise NeedsGrid(query.level, "it attends over other axes than the pixels")
    mask = _log_weights(key, query.values)
    values = functional.scaled_dot_product_attention(
        query.values, key.values, value.values, None if mask is None else mask[None], dropout_p, scale=scale
    )
    return query.with_values(values)


@rule("MultiheadAttention")
def _multihead(run: Run, module, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
               average_attn_weights=True, is_causal=False):  # fmt: skip
    tokens = (query, key, value)
    axis = 1 if module.batch_first else 0
    masks = (key_padding_mask, attn_mask, is_causal or None)
    if masks != (None, None, None) or not all(isinstance(x, Located) for x in tokens):
        level = next(x.level for x in tokens if isinstance(x, Located))
        raise NeedsGrid(level, "its attention has a mask, or tokens that are no points")
    if any((not x.tokens and x.spread > 1) or x.axis != axis or x.values.ndim != 3 for x in tokens):
        raise NeedsGrid(query.level, "it attends over other axes than the pixels")
    if need_weights and query.level.on_grid:
        raise NeedsGrid(query.level, "there its attention weights are torch's")
    if module.bias_k is not None or module.add_zero_attn:
        raise NeedsGrid(key.level, "it adds keys that are no points")
    mask = _log_weights(key, query.values)
    if mask is not None:
        mask = mask.expand(query.values.shape[axis], -1)
    values = module(query.values, key.values, value.values, attn_mask=mask, need_weights=False)[0]
    return query.with_values(values), Withheld(query.level, "its attention weights are asked for") if need_weights else None
