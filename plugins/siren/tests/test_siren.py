"""The siren format obeys the laws of every format."""

from inrbridge_siren import SirenFormat

from inrbridge.testing import FormatConformance


class TestSiren(FormatConformance):
    format = SirenFormat()
