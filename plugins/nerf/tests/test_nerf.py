"""The nerf format: the laws of every format, its mathematics, its stacked evaluation, fitting, and what is refused."""

import pytest
from inrbridge_nerf import NerfFormat

from inrbridge import Box, Product, Sphere
from inrbridge.testing import FormatConformance


class TestNerf(FormatConformance):
    format = NerfFormat()


class TestRadiance(FormatConformance):
    format = NerfFormat()

    @pytest.fixture
    def checkpoint(self, tmp_path):
        field = NerfFormat().build(Product(Box((0, -1, 2), (1, 1, 4)), Sphere()), 4, width=16, layers=6)
        NerfFormat().save(field, tmp_path / "radiance.safetensors")
        return tmp_path / "radiance.safetensors"
