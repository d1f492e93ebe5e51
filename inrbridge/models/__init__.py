"""Floor 6: architectures by name. `build_model("convnet", domain, in_channels, classes, **options)` returns an INRNet."""

from __future__ import annotations

import importlib
import inspect

import torch

from inrbridge.domains import Domain
from inrbridge.errors import ConfigError, did_you_mean, unknown_name
from inrbridge.models.converted import ConvertedDenseNet, ConvertedNet
from inrbridge.models.convnet import ConvNet
from inrbridge.models.convnext import ConvNeXt
from inrbridge.models.dense import DenseNet
from inrbridge.models.gan import GAN
from inrbridge.models.generative import GenerativeNet
from inrbridge.models.generator import Generator
from inrbridge.models.net import INRNet
from inrbridge.models.paper import INRNet2, INRNet3, INRNet4, INRNet5
from inrbridge.models.resnet import ResNet
from inrbridge.models.transformer import Transformer
from inrbridge.models.unet import UNet
from inrbridge.models.universal import RectangleNet, UniversalApproximator, rectangle_net, universal_approximator
from inrbridge.models.vae import VAE

__all__ = [
    "GAN",
    "VAE",
    "ConvNeXt",
    "ConvNet",
    "ConvertedDenseNet",
    "ConvertedNet",
    "DenseNet",
    "GenerativeNet",
    "Generator",
    "INRNet",
    "INRNet2",
    "INRNet3",
    "INRNet4",
    "INRNet5",
    "RectangleNet",
    "ResNet",
    "Transformer",
    "UNet",
    "UniversalApproximator",
    "build_model",
    "is_own_model",
    "model_class",
    "model_names",
    "model_options",
    "rectangle_net",
    "universal_approximator",
]

_MODELS: dict[str, type[INRNet]] = {
    model.name: model
    for model in (
        ConvNet,
        ResNet,
        ConvNeXt,
        Transformer,
        INRNet2,
        INRNet4,
        INRNet3,
        INRNet5,
        UNet,
        Generator,
        VAE,
        GAN,
    )
}
_CONVERTED = {model.name: model for model in (ConvertedNet, ConvertedDenseNet)}  # only `inrbridge.convert` knows their options
_GIVEN = ("self", "domain", "in_channels", "classes", "generator")


def model_names() -> list[str]:
    """Return the names that `build_model` knows."""
    return list(_MODELS)


def model_options(name: str) -> dict[str, object]:
    """Return the options of an architecture with their defaults."""
    parameters = inspect.signature(model_class(name).__init__).parameters
    return {key: value.default for key, value in parameters.items() if key not in _GIVEN}


def build_model(name: str, domain: Domain, in_channels: int, classes: int, *, generator: torch.Generator | None = None,
                **options) -> INRNet:  # fmt: skip
    """Build a network.

    Args:
        name: one of `model_names()`, or "package.module:Class" of your own INRNet.
        domain: where the fields live.
        in_channels: channels of the fields.
        classes: outputs of the network.
        generator: source of the initial weights.
        options: of the architecture, see `model_options(name)`.

    Raises:
        UnknownName: there is no such architecture. ConfigError: it has no such option.
    """
    model = model_class(name)
    known = [key for key in inspect.signature(model.__init__).parameters if key not in _GIVEN]
    for key in options:
        if key not in known:
            raise ConfigError(
                f'Model "{name}" has no option "{key}"; expected one of: {", ".join(known)}.{did_you_mean(key, known)}'
            )
    return model(domain, in_channels, classes, generator=generator, **options)


def is_own_model(kind: type) -> bool:
    """Whether a class is one that `build_model` finds by its `name`, without importing anything."""
    return (_MODELS | _CONVERTED).get(getattr(kind, "name", None)) is kind


def model_class(name: str) -> type[INRNet]:
    """Return the class of a name, or of "package.module:Class"."""
    if name in _MODELS or name in _CONVERTED:
        return (_MODELS | _CONVERTED)[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f'Got model "{name}", but {error}; expected "package.module:Class" of an installed package.'
            ) from error
        if not (isinstance(found, type) and issubclass(found, INRNet)):
            raise ConfigError(f'Got model "{name}", which is no subclass of inrbridge.models.INRNet.')
        return found
    raise unknown_name("model", name, _MODELS)
