"""The conformance kit: a sound format keeps every law, and one sabotaged on purpose breaks exactly the law it is against."""

import importlib
import textwrap
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from fake_formats import RippleFormat, install, ripple

from inrbridge import Box, Format, plugins
from inrbridge.errors import CannotOpen, UnknownName
from inrbridge.grid import GridFormat
from inrbridge.testing import LAWS, FormatConformance, check_conformance, only_plugins
from inrbridge.testing.laws import wording

SOUND = textwrap.dedent("""
    import copy

    import torch
    from inrbridge import Format, hookimpl, read_native

    class WaveField(torch.nn.Module):
        format = "NAME"

        def __init__(self, domain, channels, waves, generator):
            super().__init__()
            self.domain, self.channels, self.waves = domain, channels, waves
            self.channel_names = tuple(f"wave{i}" for i in range(channels))
            self.amplitude = torch.nn.Parameter(torch.randn(waves, channels, generator=generator))
            self.frequency = torch.nn.Parameter(torch.randn(waves, domain.dim, generator=generator))

        @property
        def architecture(self):
            return {"waves": self.waves}

        def forward(self, coords):
            values = torch.sin(coords @ self.frequency.to(coords).mT) @ self.amplitude.to(coords)
            return values

    class WaveFormat(Format):
        api, name = 1, "NAME"
        suffixes = (".safetensors",)

        def recognizes(self, probe):
            return probe.native.get("format") == self.name

        def open(self, path):
            return read_native(path, self)

        def save(self, field, path):
            super().save(field, path)

        def build(self, domain, channels, *, generator=None, waves=4):
            return WaveField(domain, channels, waves, generator or torch.Generator().manual_seed(0))

    @hookimpl
    def inrbridge_formats():
        return [WaveFormat()]
""")

OPEN = "return read_native(path, self)"
IS_NATIVE = 'probe.native.get("format") == self.name'

# the law that breaks, what is replaced, and by what
SABOTAGE = [
    ("is_discovered", "return [WaveFormat()]", "return []"),
    ("imports_quietly", "import torch", "import torch; print('hello')"),
    ("imports_quietly", "import torch", "import torch, random; random.seed(0)"),
    ("names_its_options", "def open(self, path):", "def open(self, path, **options):"),
    ("imports_public_names", "hookimpl, read_native", "hookimpl; from inrbridge.native import read_native"),
    ("recognizes_its_file", IS_NATIVE, "False"),
    ("declines_other_files", IS_NATIVE, "True"),
    ("refuses_hidden_code", OPEN, "path.read_bytes()[:2] == b'PK' and torch.load(path, weights_only=False); " + OPEN),
    ("reports_damage", OPEN, "from inrbridge import errors\n        try: " + OPEN +
     "\n        except errors.CannotOpen as error: raise errors.ConfigError(str(error)) from error"),
    ("survives_damage", OPEN,
     "from safetensors.torch import load_file; load_file(path)['frequency'].reshape(4, 2).isfinite().all() or 1 / 0; " + OPEN),
    ("counts_its_fields", "def open(self, path):", "def count(self, probe): return 3\n\n    def open(self, path):"),
    ("counts_its_fields", "def open(self, path):",
     "def open_all(self, path, options): return iter(())\n\n    def open(self, path):"),
    ("saves_what_it_opens", "super().save(field, path)",
     "field = copy.deepcopy(field); field.amplitude.data *= 2; super().save(field, path)"),
    ("builds_anew", "torch.randn(waves, channels, generator=generator)", "torch.randn(waves, channels)"),
    ("is_a_field", "in range(channels))", "in range(channels + 1))"),
    ("has_the_shape", "return values", "return values if coords.ndim > 1 else values[None]"),
    ("is_pointwise", "return values", "return values - values.mean(-2, keepdim=True) if coords.ndim > 1 else values"),
    ("is_deterministic", "return values", "return values + torch.rand(())"),
    ("keeps_dtype_and_device", "return values", "return values.float()"),
    ("has_finite_gradients", "return values",
     "return values + torch.where(coords > 9, (coords - 9).sqrt(), 0).sum(-1, keepdim=True)"),
    ("keeps_tangents", "return values", "return torch.autograd.forward_ad.unpack_dual(values).primal"),
    ("stacks_like_a_loop", "def forward",
     "def evaluate_stack(self, states, coords): return self(coords).expand(4, -1, -1)\n\n    def forward"),
    ("survives_pickling", "super().__init__()", "super().__init__(); self.scale = lambda values: values"),
]  # fmt: skip


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that installs a one-module plugin, with one piece of the source replaced, and returns its format."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(old="", new=""):
        assert old in SOUND
        name = f"wave{abs(hash((tmp_path, new)))}"
        module = install(site, name, SOUND.replace(old, new).replace("NAME", name) if old else SOUND.replace("NAME", name))
        plugins.rescan()
        return importlib.import_module(module).WaveFormat()

    yield make
    monkeypatch.undo()
    plugins.rescan()


def outcomes(format, laws):
    return {result.law: result for result in check_conformance(format, laws=laws)}


def test_a_sound_format_keeps_every_law(plugin):
    for result in check_conformance(plugin()):
        assert result.outcome == "kept", result


@pytest.mark.parametrize(("law", "old", "new"), SABOTAGE, ids=[f"{row[0]}-{i}" for i, row in enumerate(SABOTAGE)])
def test_a_sabotaged_format_breaks_exactly_the_law_it_is_against(plugin, law, old, new):
    slow = {"imports_quietly"} - {law}  # starts an interpreter
    results = outcomes(plugin(old, new), [name for name in LAWS if name not in slow])
    assert [name for name, result in results.items() if result.outcome == "broken"] == [law]
    assert len(results[law].reason.split()) > 5  # says what is wrong, in a sentence


def test_every_law_has_a_sabotage_and_a_wording():
    assert {row[0] for row in SABOTAGE} == set(LAWS)
    assert all(len(wording(name).split()) > 3 for name in LAWS)


def test_absent_capabilities_are_skipped_with_the_reason(tmp_path):
    class Constant:
        domain, channels = Box.centered(2), 1

        def __call__(self, coords):
            return torch.ones(*coords.shape[:-1], 1, dtype=coords.dtype)

    class ConstantFormat(Format):
        api, name = 1, "constant"

        def recognizes(self, probe):
            return probe.head == b"constant"

        def open(self, path):
            if Path(path).read_bytes() != b"constant":
                raise CannotOpen("it does not say constant; write it anew.")
            return Constant()

    path = tmp_path / "file.constant"
    path.write_bytes(b"constant")
    results = {result.law: result for result in check_conformance(ConstantFormat(), path, laws=set(LAWS) - {"imports_quietly"})}
    skipped = {name for name, result in results.items() if result.outcome == "skipped"}
    assert skipped == {"has_finite_gradients", "keeps_tangents", "saves_what_it_opens", "builds_anew"}
    assert all(results[name].reason for name in skipped)
    assert {name for name, result in results.items() if result.outcome == "broken"} == {
        "is_discovered",
        "survives_pickling",
        "imports_public_names",  # this very file looks inside
    }


def test_a_format_without_an_example_is_told_to_write_one():
    class Bare(Format):
        api, name = 1, "bare"

        def recognizes(self, probe):
            return False

        def open(self, path):
            raise CannotOpen("it opens nothing.")

    assert all(result.outcome == "broken" and "example" in result.reason for result in check_conformance(Bare()))


def test_unknown_laws_are_refused():
    with pytest.raises(UnknownName, match="is_pointwise"):
        check_conformance(GridFormat(), laws=["is_pontwise"])


def test_a_law_is_overridden_only_with_a_reason():
    with pytest.raises(TypeError, match="xfail"):

        class Loose(FormatConformance):
            def test_is_pointwise(self, case):
                pass

    class Honest(FormatConformance):
        @pytest.mark.xfail(reason="its values are normalized over the points of a call, on purpose")
        def test_is_pointwise(self, case):
            super().test_is_pointwise(case)

    assert issubclass(Honest, FormatConformance)


def test_only_plugins_hides_the_others(plugin):
    format = plugin()
    before = plugins.registry()
    with only_plugins() as registry:
        assert [found.name for found in registry.all()] == ["grid", "output"]
    with only_plugins(format.name) as registry:
        assert [found.name for found in registry.all()] == sorted(["grid", "output", format.name])
    assert plugins.registry() is before


class TestGrid(FormatConformance):
    format = GridFormat()


class TestRipple(FormatConformance):
    """A format of a test module, opened with an option, from a file that the test writes."""

    format = RippleFormat()
    options: ClassVar = {"gain": 2.0}

    @pytest.fixture
    def checkpoint(self, tmp_path):
        path = tmp_path / "given.safetensors"
        RippleFormat().save(ripple(), path)
        return path

    @pytest.mark.xfail(reason="no distribution brings this format")
    def test_is_discovered(self, case):
        super().test_is_discovered(case)
