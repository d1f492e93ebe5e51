"""Floor 8: the format of outputs: a net, its input and the points of its trunk in one of inrbridge's own files.

Its native header describes the architecture; the tensors are "net.*", and "input.*" or "latent":

    net         name, domain, in_channels, classes, options, of `INRNet.config()`
    input       format, architecture, domain, channels, channel_names, channel_ranges, view; or {latent: length}
    points      sampler, n, seed
    activation  identity, softmax or sigmoid

Nothing in the file is executed: a net is built by its name among inrbridge.models, or from a module that the caller trusts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inrbridge.errors import CannotOpen, ConfigError
from inrbridge.formats import Format, Probe

if TYPE_CHECKING:
    import torch

    from inrbridge.domains import Domain
    from inrbridge.field import Field
    from inrbridge.models.dense import DenseNet
    from inrbridge.outputs.field import ModelField


class OutputFormat(Format):
    """Outputs of nets.

    Args:
        trusted: modules from which a file may take the class of its net; they are imported.
    """

    api, name = 1, "output"
    suffixes = (".safetensors",)
    description = "what a net gives for a field or a latent vector: the net and its input"

    def __init__(self, trusted: tuple[str, ...] = ()):
        self.trusted = trusted

    def recognizes(self, probe: Probe) -> bool:
        return probe.native.get("format") == self.name

    def open(self, path: Path, *, trust: str = "") -> ModelField:
        """Read the field; `trust` names a module that may bring the class of its net."""
        from inrbridge.native import read_native

        return read_native(path, OutputFormat((trust,)) if trust else self)

    def build(
        self,
        domain: Domain,
        channels: int,
        *,
        generator: torch.Generator | None = None,
        net: Mapping[str, object],
        input: Mapping[str, object],
        points: Mapping[str, object],
        activation: str = "identity",
    ) -> ModelField:
        """Return the output of a fresh net for a fresh input of these architectures."""
        import torch

        from inrbridge.outputs.field import ModelField

        built = self._net(net, generator)
        if built.domain != domain or built.classes != channels:
            raise CannotOpen(
                f"its net gives {built.classes} channels on {built.domain}, the field has {channels} on {domain}; it was edited."
            )
        if "latent" in input:
            return ModelField(built, torch.zeros(input["latent"]), points=points, activation=activation)
        return ModelField(built, self._input(input, generator), points=points, view=input["view"], activation=activation)

    def _net(self, config: Mapping[str, object], generator: torch.Generator | None) -> DenseNet:
        import torch

        from inrbridge.domains import domain_from_config
        from inrbridge.models import build_model

        module, colon, _ = str(config["name"]).partition(":")
        if colon and module not in self.trusted:
            raise ConfigError(
                f"its net is of the class {config['name']}; opening never imports code that a file names. If you trust that "
                f'package: open_field(path, trust="{module}"), or --set trust={module} on the command line.'
            )
        domain = domain_from_config(config["domain"])
        with torch.random.fork_rng(devices=[]):  # torch's own layers draw weights, before ours are drawn from the generator
            return build_model(config["name"], domain, config["in_channels"], config["classes"], generator=generator,
                               **config["options"])  # fmt: skip

    def _input(self, header: Mapping[str, object], generator: torch.Generator | None) -> Field:
        from inrbridge.domains import domain_from_config
        from inrbridge.plugins import get_format

        format = self if header["format"] == self.name else get_format(header["format"])
        names, ranges = tuple(header["channel_names"]), header["channel_ranges"]
        field = format.build(domain_from_config(header["domain"]), header["channels"], generator=generator,
                             **header["architecture"])  # fmt: skip
        field.channel_names, field.format = names, format.name
        if any(pair is not None for pair in ranges):
            field.channel_ranges = tuple(None if pair is None else tuple(pair) for pair in ranges)
        return field

    def example(self, folder: Path) -> Path:
        """Write the output of a small net for a grid, and return its path."""
        import torch

        from inrbridge.domains import Box
        from inrbridge.grid import GridField
        from inrbridge.models import build_model
        from inrbridge.outputs.field import ModelField

        generator, path = torch.Generator().manual_seed(0), Path(folder) / f"{self.name}.safetensors"
        net = build_model("unet", Box.centered(2), 1, 3, widths=[4, 6], convs=1, resolution=8, generator=generator)
        input = GridField(torch.rand(6, 6, 1, generator=generator), Box.centered(2), channel_names=("gray",))
        points = {"sampler": "lattice", "n": 64, "seed": 0}
        self.save(ModelField(net, input, points=points, activation="softmax", channel_names=("a", "b", "c")), path)
        return path
