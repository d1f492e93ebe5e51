"""Floor 2: bounded measurable sets with a measure, on which fields live (Wang & Golland 2023, section 3.1).

Each maps the unit cube onto itself with volumes in proportion, so that one point sequence serves all of them; only a
`Region` has no such map, and takes those points of its `envelope` that lie on it, and a `Manifold` of charts, whose points
carry the volume that their chart makes of them.
"""

from collections.abc import Mapping

from inrbridge.domains.atlases import atlas_from_config
from inrbridge.domains.base import Box, Domain
from inrbridge.domains.charts import Chart, FunctionChart
from inrbridge.domains.compound import Product
from inrbridge.domains.manifold import Manifold
from inrbridge.domains.masks import CellMask
from inrbridge.domains.polygons import Polygon
from inrbridge.domains.regions import Region
from inrbridge.domains.shapes import Ball, Sphere, Torus
from inrbridge.domains.weighted import Weighted
from inrbridge.errors import ConfigError, InrBridgeError, unknown_name

__all__ = ["Ball", "Box", "Chart", "Domain", "FunctionChart", "Manifold", "Polygon", "Product", "Region", "Sphere", "Torus",
           "Weighted", "domain_from_config"]  # fmt: skip


def _read_region(config: Mapping) -> Region:
    box = domain_from_config(config["domain"])
    if "polygon" in config:
        return Region(box, Polygon(config["polygon"]))
    return Region(box, CellMask.from_config(box, config["mask"]))


_READERS = {
    "box": lambda config: Box(config["low"], config["high"]),
    "ball": lambda config: Ball(config["center"], config["radius"]),
    "sphere": lambda config: Sphere(config["radius"], config["center"]),
    "torus": lambda config: Torus(config["periods"]),
    "product": lambda config: Product(domain_from_config(config["a"]), domain_from_config(config["b"])),
    "region": _read_region,
    "manifold": atlas_from_config,
}


def domain_from_config(config: Mapping) -> Domain:
    """Build a domain from its JSON description.

    >>> domain_from_config({"type": "box", "low": [0], "high": [1]})
    Box(low=(0.0,), high=(1.0,))
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        raise ConfigError(f'Got {config!r} as a domain, expected a table such as {{"type": "box", "low": [0], "high": [1]}}.')
    if config["type"] not in _READERS:
        raise unknown_name("domain", config["type"], _READERS, ConfigError)
    try:
        return _READERS[config["type"]](config)
    except InrBridgeError:
        raise
    except KeyError as error:
        raise ConfigError(
            f"Got the {config['type']} domain {dict(config)!r} without {error}, expected it too; compare Domain.to_config()."
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Got a {config['type']} domain {dict(config)!r} that cannot be read: {error!r}; compare Domain.to_config()."
        ) from error
