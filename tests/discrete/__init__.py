"""Discrete networks that conversion is tested and measured on: plain torch modules, as people write them.

Two are pretrained (`cifar_resnet`, `espnet`); the others (`all_families`) are small, one for each kind of architecture, their
weights drawn at random.
"""

from discrete.families import Family, all_families

__all__ = ["Family", "all_families"]
