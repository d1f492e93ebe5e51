"""Discovery, isolation at every place where a plugin may fail, and the records that tell of it."""

import importlib.metadata
import json
import sys
import warnings

import pytest
from fake_formats import PLUGIN, RippleFormat, install

import inrbridge
from inrbridge import plugins
from inrbridge.errors import PluginError, PluginWarning, UnknownFormat
from inrbridge.known import KNOWN_PLUGINS
from inrbridge.plugins import DISABLED, FAILED, LOADED, NOT_LOADED, all_formats, get_format, registry

GOOD = "good"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path for fake distributions; plugins that are really installed are out of sight."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("INRBRIDGE_PLUGINS", raising=False)
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    monkeypatch.setattr(plugins, "distributions", lambda: importlib.metadata.distributions(path=[str(folder)]))
    yield folder
    monkeypatch.undo()
    plugins.rescan()


def record(name):
    return next(record for record in registry().records if record.name == name)


def names():
    return [format.name for format in all_formats()]


def source(body, name="bad"):
    """The good plugin with one line put in the place of its last."""
    return PLUGIN.format(name=name).replace("    return [Thing()]", body)


def test_no_plugin_installed_leaves_the_builtin_ones(site):
    assert [r.name for r in plugins.rescan().records] == ["grid", "output"]
    assert record("grid").is_builtin and record("output").is_builtin


def test_a_plugin_is_found_and_its_metadata_listed_without_import(site, monkeypatch):
    module = install(site, "wave", version="2.5")
    plugins.rescan()
    found = record("wave")
    assert (found.distribution, found.version, found.target, found.status) == ("inrbridge-wave", "2.5", module, NOT_LOADED)
    assert module not in sys.modules
    assert get_format("wave").name == "wave"
    assert (found.status, found.formats, found.place, found.error) == (LOADED, ("wave",), "", "")


def test_a_named_format_imports_one_plugin_only(site):
    install(site, "wave")
    install(site, "bad", "raise RuntimeError('must not be imported')")
    plugins.rescan()
    assert get_format("wave").name == "wave"
    assert record("bad").status == NOT_LOADED


BROKEN = {
    "import": ("import", "import nothing_of_this_name", "nothing_of_this_name"),
    "syntax": ("import", "def (:", "SyntaxError"),
    "raises on import": ("import", "raise RuntimeError('boom\\nsecond line')", "RuntimeError: boom second line"),
    "hook arguments": ("hooks", source("    return []").replace("formats()", "formats(unasked)"), "unasked"),
    "misspelt hook": ("hooks", source("    return []").replace("inrbridge_formats", "inrbridge_format"), "inrbridge_format"),
    "no hook": ("hooks", "x = 1", "@inrbridge.hookimpl"),
    "raises": ("formats", source("    return [1 / 0]"), "ZeroDivisionError"),
    "nothing": ("formats", source("    return None"), "expected a list"),
    "empty": ("formats", source("    return []"), "expected a list"),
    "junk": ("formats", source("    return [3]"), "got 3"),
    "no list": ("formats", source("    return Thing()"), "expected a list"),
    "class": ("formats", source("    return [Thing]"), "write Thing()"),
    "twice": ("formats", source("    return [Thing(), Thing()]"), 'two formats "bad"'),
    "abstract": ("formats", source("    return [Thing()]").replace("def open", "def opens"), "abstract"),
    "no api": ("formats", source("    return [Thing()]").replace('api, name = 1, "bad"', 'name = "bad"'), "add `api = 1`"),
    "old api": ("formats", source("    return [Thing()]").replace("= 1,", "= 0,"), "pip install -U inrbridge-bad"),
    "new api": ("formats", source("    return [Thing()]").replace("= 1,", "= 2,"), "pip install -U inrbridge."),
    "odd name": ("formats", source("    return [Thing()]").replace('1, "bad"', '1, "Bad Name"'), "'Bad Name'"),
    "odd suffixes": ("formats", source("    return [Thing()]").replace('(".bad",)', '".bad"'), "suffixes '.bad'"),
    "kwargs": ("formats", source("    return [Thing()]").replace("(self, path)", "(self, path, **options)"), "**options"),
    "args": ("formats", source("    return [Thing()]").replace("(self, path)", "(self, path, *more)"), "*more"),
    "builtin name": ("formats", source("    return [Thing()]").replace('1, "bad"', '1, "ripple"'), "is taken by"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_breaks_nothing_but_itself(site, case):
    place, text, reason = BROKEN[case]
    install(site, "bad", text)
    install(site, GOOD)
    host = plugins.rescan()
    host.register(RippleFormat())
    with pytest.warns(PluginWarning, match=r"failed to load: run `inrbridge doctor`"):
        found = names()
    assert GOOD in found and "ripple" in found and "bad" not in found
    failed = record("bad")
    assert (failed.status, failed.place, failed.formats) == (FAILED, place, ())
    assert reason in failed.error + "." and "\n" not in failed.error
    with pytest.raises(PluginError, match=r'Plugin "bad" \(inrbridge-bad 1.0\) failed to load: .* Run: inrbridge doctor'):
        get_format("bad")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once is enough
        assert names() == found
    assert not host._manager.has_plugin("inrbridge-bad:bad")


def test_the_api_mismatch_says_which_line_mends_it(site):
    install(site, "bad", source("    return [Thing()]").replace("= 1,", "= 0,"))
    plugins.rescan().load_all()
    assert record("bad").error == (
        "format 'bad' (inrbridge-bad 1.0) speaks plugin API 0, this inrbridge speaks 1: pip install -U inrbridge-bad"
    )


@pytest.mark.parametrize("entries", ["[inrbridge]\nno equals sign\n", "[inrbridge]\nbad = ???\n", "[inrbridge]\nbad = \n"])
def test_broken_metadata_is_recorded(site, entries):
    install(site, "bad", entries=entries)
    install(site, GOOD)
    plugins.rescan()
    with pytest.warns(PluginWarning):
        assert GOOD in names()
    failed = [record for record in registry().records if record.status == FAILED and not record.is_builtin]
    assert len(failed) == 1 and failed[0].place in ("metadata", "import")


def test_metadata_without_a_name_or_with_false_bytes(site):
    install(site, "bad")
    (site / "inrbridge_bad-1.0.dist-info" / "METADATA").write_text("Version: 1\n")
    install(site, "alien")
    (site / "inrbridge_alien-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[other]")
    plugins.rescan().load_all()
    failed = [record for record in registry().records if record.status == FAILED and not record.is_builtin]
    assert [(record.place, record.name) for record in failed] == [("metadata", "inrbridge_bad")]


def test_a_plugin_object_that_cannot_be_hashed_is_refused(site):
    text = PLUGIN.format(name="bad") + "\nclass P(dict):\n    inrbridge_formats = staticmethod(inrbridge_formats)\nplugin = P()\n"
    install(site, "bad", text, entries="[inrbridge]\nbad = fake_inrbridge_bad:plugin\n")
    install(site, GOOD)
    plugins.rescan().load_all()
    assert record("bad").place == "hooks" and record(GOOD).status == LOADED


def test_one_name_in_two_distributions_loads_neither(site):
    install(site, "wave", distribution="inrbridge-wave", version="1.0")
    install(site, "wave", distribution="better-wave", version="3.1")
    install(site, GOOD)
    plugins.rescan()
    with pytest.raises(PluginError, match=r"both better-wave 3.1 and inrbridge-wave 1.0"):
        get_format("wave")
    with pytest.warns(PluginWarning, match="2 plugins failed|3 plugins failed"):
        found = names()
    assert GOOD in found and "wave" not in found


def test_one_name_under_two_entry_points_loads_neither(site):
    for name in ("one", "three", "two"):
        install(site, name, PLUGIN.format(name="wave"))
    plugins.rescan().load_all()
    for name in ("one", "two", "three"):
        assert record(name).status == FAILED and "inrbridge-one 1.0 and inrbridge-three 1.0" in record(name).error
    with pytest.raises(PluginError, match=r"both inrbridge-one 1.0 and inrbridge-three 1.0"):
        get_format("wave")


def test_the_same_distribution_twice_on_the_path_counts_once(site, tmp_path, monkeypatch):
    install(site, "wave", version="2.0")
    install(tmp_path / "older", "wave", distribution="inrbridge.wave", module="fake_inrbridge_wave", version="1.0")
    folders = [str(site), str(tmp_path / "older")]
    monkeypatch.setattr(plugins, "distributions", lambda: importlib.metadata.distributions(path=folders))
    plugins.rescan()
    assert record("wave").version == "2.0" and get_format("wave").name == "wave"


def test_a_stranger_cannot_take_the_name_of_the_builtin(site):
    install(site, "grid", distribution="evil-grid")
    install(site, "other", PLUGIN.format(name="grid"))
    plugins.rescan().load_all()
    strangers = [record for record in registry().records if not record.is_builtin]
    assert {record.status for record in strangers} == {FAILED}
    assert get_format("grid").__class__.__module__ == "inrbridge.grid"


def test_a_broken_builtin_breaks_nothing_else(site, monkeypatch):
    install(site, GOOD)
    monkeypatch.setattr(plugins, "BUILTIN", {"grid": "inrbridge.absent:GridFormat"})
    plugins.rescan()
    with pytest.warns(PluginWarning):
        assert names() == [GOOD]
    with pytest.raises(PluginError, match=r"inrbridge\.absent"):
        get_format("grid")


def test_two_entry_points_of_one_module_are_one_plugin(site):
    text = PLUGIN.format(name="wave").replace("return [Thing()]", "return [Thing(), Other()]")
    text = text.replace("@hookimpl", 'class Other(Thing):\n    name = "swell"\n\n@hookimpl')
    install(site, "wave", text, entries="[inrbridge]\nwave = fake_inrbridge_wave\nswell = fake_inrbridge_wave\n")
    plugins.rescan()
    assert get_format("swell").name == "swell" and get_format("wave").name == "wave"
    assert {"swell", "wave"} <= set(names())


def test_the_environment_chooses_plugins(site, monkeypatch):
    install(site, "wave")
    install(site, GOOD)
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "wave, absent")
    plugins.rescan()
    assert (record("wave").status, record(GOOD).status) == (NOT_LOADED, DISABLED)
    with pytest.raises(UnknownFormat, match=r"switched off.*INRBRIDGE_PLUGINS"):
        get_format(GOOD)
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    assert {record.status for record in plugins.rescan().records if not record.is_builtin} == {DISABLED}
    assert record("grid").status == NOT_LOADED


def test_strict_raises_with_the_cause(site, monkeypatch):
    install(site, "bad", "raise RuntimeError('boom')")
    install(site, GOOD)
    monkeypatch.setenv("INRBRIDGE_STRICT", "1")
    plugins.rescan()
    assert get_format(GOOD).name == GOOD
    with pytest.raises(PluginError, match="boom") as caught:
        all_formats()
    assert isinstance(caught.value.__cause__, RuntimeError)
    monkeypatch.setenv("INRBRIDGE_STRICT", "0")
    plugins.rescan()
    with pytest.warns(PluginWarning):
        assert GOOD in names()


def test_absent_formats_are_told_with_the_next_step(site):
    install(site, "wave")
    plugins.rescan()
    with pytest.raises(UnknownFormat, match=r"pip install inrbridge-ngp"):
        get_format("ngp")
    with pytest.raises(UnknownFormat, match=r'There is no format "wav". Installed: .*wave.* Did you mean "wave"?'):
        get_format("wav")


def test_register_takes_a_format_for_the_session(site):
    plugins.rescan()
    inrbridge.register(RippleFormat())
    again = RippleFormat()
    inrbridge.register(again)  # the cell was run again
    assert get_format("ripple") is again and names().count("ripple") == 1
    assert record("ripple").owner == "register() in this session"


def test_register_checks_like_a_plugin_is_checked(site):
    install(site, "wave")
    plugins.rescan()
    for wrong in (RippleFormat, 3, None):
        with pytest.raises(PluginError):
            inrbridge.register(wrong)
    for name in ("wave", "grid"):
        taken = RippleFormat()
        taken.name = name
        with pytest.raises(PluginError, match="is taken by"):
            inrbridge.register(taken)
    assert "ripple" not in names()


def test_known_plugins_are_listed_with_a_pip_line():
    assert set(KNOWN_PLUGINS) == {"siren", "fourier", "ngp", "plenoxels", "nerf"}
    assert plugins.pip_line("ngp") == "pip install inrbridge-ngp"


def test_records_are_json(site):
    install(site, "bad", "raise RuntimeError('boom')")
    plugins.rescan().load_all()
    assert json.loads(json.dumps([record.to_json() for record in registry().records]))[-1]["place"] == "import"
