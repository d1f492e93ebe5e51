"""Floor 8: training, evaluation and prediction.

Public names are loaded on first use, so that reading a configuration imports no torch.
"""

import importlib

_HOME = {
    "TrainConfig": "config", "load_config": "config",
    "train": "loop", "RunSummary": "loop",
    "evaluate": "evaluating",
    "predict": "predicting", "settled": "settling",
    "generate": "generating",
    "load_model": "model_folder", "save_model": "model_folder", "Card": "model_folder",
    "Task": "tasks", "Tracker": "tracking", "read_metrics": "tracking",
}  # fmt: skip

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"inrbridge.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'inrbridge.training' has no attribute {name!r}")


def __dir__():
    return __all__
