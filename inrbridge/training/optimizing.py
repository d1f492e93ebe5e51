"""Floor 8: the optimizer and the learning rate of each step, a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from inrbridge.training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer; vectors (biases, scales of normalization) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)


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
