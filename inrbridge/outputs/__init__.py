"""Floor 8: the output of a net, for a field or a latent vector, as one file: here the two wings meet."""

from inrbridge.outputs.format import OutputFormat

__all__ = ["ModelField", "OutputFormat"]


def __getattr__(name: str):
    if name == "ModelField":  # with it comes the engine, which listing formats must not import
        from inrbridge.outputs.field import ModelField

        return ModelField
    raise AttributeError(f"module 'inrbridge.outputs' has no attribute {name!r}")
