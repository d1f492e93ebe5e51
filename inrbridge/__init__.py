"""inrbridge: learn on implicit neural representations of any kind.

Public names are loaded on first use (PEP 562), so that `import inrbridge` imports no torch.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "Ball": "domains", "Box": "domains", "Domain": "domains", "Product": "domains", "Region": "domains", "Sphere": "domains",
    "Manifold": "domains", "Torus": "domains", "Weighted": "domains",
    "Discretization": "discretization",
    "Field": "field", "FunctionField": "field", "query": "field", "channel_names": "field",
    "integrate": "quadrature",
    "FieldStack": "stacking", "stack": "stacking",
    "Format": "formats", "Probe": "formats", "read_native": "native", "write_native": "native", "read_tensors": "loading",
    "Assumptions": "assumptions",
    "GridField": "grid",
    "hookimpl": "hookspecs",
    "register": "plugins",
    "open_field": "io", "identify": "io", "save_field": "io", "build_field": "io",
    "preview": "rendering",
    "FieldDataset": "data", "LabelledPoints": "data", "TargetFields": "data", "Store": "data", "pack": "data",
    "convert": "conversion",
    "fit": "fitting", "distill": "fitting",
    "ModelField": "outputs",
    "train": "training", "evaluate": "training", "predict": "training", "generate": "training",
    "InrBridgeError": "errors",
}  # fmt: skip
_MODULES = ("batched", "discrepancy", "encodings", "errors", "foreign", "frames", "models", "nn", "options", "radiance",
            "sampling", "transforms")  # fmt: skip

__all__ = ["__version__", *sorted(_HOME), *_MODULES]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"inrbridge.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"inrbridge.{name}")
    raise AttributeError(f"module 'inrbridge' has no attribute {name!r}")


def __dir__():
    return __all__
