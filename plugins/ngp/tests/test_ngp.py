"""The ngp format: the laws of every format."""

from inrbridge_ngp import NgpFormat

from inrbridge.testing import FormatConformance


class TestNgp(FormatConformance):
    format = NgpFormat()
