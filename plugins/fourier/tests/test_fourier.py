"""The fourier format obeys the laws of every format."""

from inrbridge_fourier import FourierFormat

from inrbridge.testing import FormatConformance


class TestFourier(FormatConformance):
    format = FourierFormat()
