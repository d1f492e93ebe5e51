"""Floor 8: the optimizer and the learning rate of each step, a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from inrbridge.training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer; vectors (biases, scales of normalization) are not decayed.

    Every group holds a `factor` of the learning rate: that which `model.rate_factors` gives, where the model has it, for the
    first name of its parameters ("critic" for "critic.head.weight"), else 1.
    """
    factors = getattr(model, "rate_factors", {})
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = factors.get(name.partition(".")[0], 1.0), config.weight_decay if parameter.ndim >= 2 else 0.0
            group = groups.setdefault(key, {"params": [], "factor": key[0], "weight_decay": key[1]})
            group["params"].append(parameter)
    # decayed ones first, as they have always stood
    ordered = sorted(groups.values(), key=lambda group: (-group["factor"], group["params"][0].ndim < 2))
    if config.name == "adamw":
        return torch.optim.AdamW(ordered, lr=config.lr, betas=tuple(map(float, config.betas)))
    return torch.optim.SGD(ordered, lr=config.lr, momentum=config.betas[0])


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Return the learning rate of a step 0..total-1.

    >>> [round(learning_rate(OptimizerConfig(lr=1.0, warmup=2), step, 6), 3) for step in range(6)]
    [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return config.lr
    passed = (step - config.warmup) / max(1, total - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * passed))
