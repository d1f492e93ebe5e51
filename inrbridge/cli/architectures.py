"""Floor 9: networks and spaces as the words of a command line name them."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path


def network(args, dim: int):
    """Build the architecture, put the weights into it, and the normalization before it."""
    from inrbridge.conversion.pretrained import Normalized, fill
    from inrbridge.errors import CannotOpen, ConfigError, MissingFile
    from inrbridge.loading import read_tensors

    if not Path(args.model).is_file():
        raise MissingFile(f'Got "{args.model}", which is no file, expected one of weights, such as net.pth or net.safetensors.')
    if (args.mean is None) != (args.std is None):
        raise ConfigError("Got one of --mean and --std, expected both, or none where the network normalizes for itself.")
    module = architecture(args.arch, args.arch_options)
    check_axes(module, dim, args.resolution)
    try:
        tensors = read_tensors(args.model)
    except CannotOpen as error:
        raise type(error)(f"{args.model}: {error}") from error
    fill(module, tensors, prefix=args.prefix, ignore=args.ignore)
    return module if args.mean is None else Normalized(module, numbers(args.mean, "--mean"), numbers(args.std, "--std"), dim)


def architecture(name: str, options: list[str]):
    """Import "module:name" from this folder or an installed package, and call it with KEY=VALUE options: a torch module."""
    from torch import nn

    from inrbridge.cli.info import option
    from inrbridge.errors import ConfigError

    place, colon, attribute = name.partition(":")
    if not (colon and place and attribute):
        raise ConfigError(f'Got --arch "{name}", expected MODULE:NAME, such as nets:UNet for the class UNet in nets.py.')
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(place.removesuffix(".py"))
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f'Got --arch "{name}", but {error}; expected a module in this folder or of an installed package, and a name in it.'
        ) from error
    finally:
        sys.path.remove(here)
    if isinstance(found, nn.Module):
        return found
    arguments = dict(option(text, "--arch-options") for text in options)
    try:
        module = found(**arguments)
    except TypeError as error:
        raise ConfigError(f'Got --arch "{name}", which cannot be called so: {error}; see --arch-options.') from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f'Got --arch "{name}", which gives a {type(module).__name__}, expected what makes a torch.nn.Module.')
    return module


def check_axes(module, dim: int, text: str) -> None:
    """Raise ConfigError where the convolutions of a network run along another number of axes."""
    from torch import nn

    from inrbridge.errors import ConfigError

    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    axes = [n for n, kind in kinds.items() if any(isinstance(layer, kind) for layer in module.modules())]
    if len(axes) == 1 and axes[0] != dim:
        raise ConfigError(
            f'Got --resolution "{text}" for a network with convolutions along {axes[0]} axes, expected pixels for each of them, '
            f"such as {'x'.join(['32'] * axes[0])}."
        )


def resolution(text: str) -> tuple[int, ...]:
    """Read pixels along each axis.

    >>> resolution("32x24")
    (32, 24)
    """
    from inrbridge.errors import ConfigError

    parts = text.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f'Got --resolution "{text}", expected pixels along each of 1 to 3 axes, such as 32x32.')
    return tuple(map(int, parts))


def domain_of(text: str, dim: int):
    """Read a domain of `dim` dimensions: "centered", "unit", "torus", or JSON."""
    from inrbridge.domains import Box, Torus, domain_from_config
    from inrbridge.errors import ConfigError

    words = {"centered": Box.centered, "unit": Box.unit, "torus": lambda d: Torus((1.0,) * d)}
    if text in words:
        return words[text](dim)
    try:
        return domain_from_config(json.loads(text))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        example = '{"type": "box", "low": [0, 0], "high": [2, 1]}'
        raise ConfigError(f'Got --domain "{text}", expected one of {", ".join(words)}, or JSON such as {example}.') from error


def channels_of(text: str | None, dim: int) -> list[str] | None:
    """Read names of channels, or name as many as a number says: those of images by their colours, others by numbers."""
    if text is None:
        return None
    if not text.isdecimal():
        from inrbridge.data.channels import canonical_channels

        return list(canonical_channels(names_of(text)))
    images = {"1": ["gray"], "3": ["red", "green", "blue"]} if dim == 2 else {}
    return images.get(text, [str(i) for i in range(int(text))])


def names_of(text: str | None) -> list[str] | None:
    """Read names between commas, or a file with one on each line."""
    if text is None:
        return None
    path = Path(text)
    listed = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return [name.strip() for name in listed if name.strip()]


def numbers(text: str, flag: str) -> list[float]:
    """Read numbers between commas."""
    from inrbridge.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f'Got {flag} "{text}", expected numbers between commas, one for each channel.') from error
