"""The command line's frame: exit codes, one sentence an error, help that never breaks, and the verbs of the host."""

import json
import os
import re
import subprocess
import sys
import types

import pytest
from fake_formats import RippleFormat, install, ripple

import inrbridge
from inrbridge import plugins
from inrbridge.cli import main as frame
from inrbridge.cli.main import VERBS, main, split_examples
from inrbridge.errors import CannotOpen, ConfigError
from inrbridge.models import model_names, model_options

ROOT = os.path.dirname(os.path.dirname(inrbridge.__file__))


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    plugins.rescan().register(RippleFormat())
    yield plugins.registry()
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    RippleFormat().save(ripple(seed=5), path)
    return str(path)


@pytest.fixture
def verb(monkeypatch):
    """Put a made-up verb in the place of `demo`."""

    def put(run):
        module = types.SimpleNamespace(
            __doc__="Do it.\n\nexamples:\n  inrbridge demo", add_arguments=lambda parser: None, run=run
        )
        monkeypatch.setattr(frame, "verb_module", lambda name: module)

    return put


def process(*words, path="", **environment):
    """Run the command line in a process of its own."""
    search = os.pathsep.join(filter(None, [ROOT, str(path)]))
    environment = {**os.environ, "PYTHONPATH": search, **environment}
    for name in [name for name, value in environment.items() if value is None]:
        del environment[name]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=120)


def raising(error):
    def run(args):
        raise error

    return run


def test_done_is_0_and_results_go_to_standard_output(capsys, file):
    assert main(["info", file]) == 0
    out, err = capsys.readouterr()
    assert "ripple" in out and err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [(CannotOpen("it is torn"), 1), (ConfigError("no such option"), 2), (KeyError("x"), 1), (KeyboardInterrupt(), 130)],
)
def test_an_error_is_one_sentence_and_an_exit_code(verb, capsys, error, code):
    verb(raising(error))
    assert main(["demo"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("inrbridge demo: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize("error", [CannotOpen("it is torn"), KeyError("x")])
def test_debug_shows_the_traceback(verb, error):
    verb(raising(error))
    with pytest.raises(type(error)):
        main(["demo", "--debug"])


def test_the_code_of_a_verb_is_passed_on(verb):
    verb(lambda args: 1)
    assert main(["demo"]) == 1
    verb(lambda args: None)
    assert main(["demo"]) == 0


def test_a_verb_that_cannot_be_imported_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(frame, "verb_module", lambda name: raising(ImportError("no matplotlib"))(name))
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "inrbridge demo: ImportError: no matplotlib (run again with --debug for the traceback)\n"


@pytest.mark.parametrize("line", ["", "info", "info a b c", "formats --jsn", "info x --set", "formats --js", "--nothing"])
def test_wrong_usage_is_2(line, capsys):
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and "inrbridge" in err and "--help" in err and "Traceback" not in err
    assert not line or (err.count("\n") == 1 and err.rstrip().endswith("--help"))


def test_a_wrong_option_comes_with_a_suggestion(capsys):
    assert main(["info", "x", "--frmat", "grid"]) == 2
    assert capsys.readouterr().err == (
        'inrbridge info: unrecognized arguments: --frmat grid. Did you mean "--format"? See: inrbridge info --help\n'
    )


def test_an_unknown_verb_comes_with_a_suggestion(capsys):
    assert main(["formts"]) == 2
    assert capsys.readouterr().err == 'inrbridge: there is no verb "formts". Did you mean "formats"? See: inrbridge --help\n'


def test_warnings_are_one_line_on_standard_error(verb, capsys):
    import warnings

    verb(lambda args: warnings.warn("beware", UserWarning, stacklevel=1))
    assert main(["demo"]) == 0
    assert capsys.readouterr().err == "inrbridge: warning: beware\n"


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"inrbridge {inrbridge.__version__}\n"


@pytest.mark.parametrize("name", ["formats", "info", "doctor"])
def test_help_of_a_verb_ends_with_two_examples(name, capsys):
    assert main([name, "--help"]) == 0
    last = capsys.readouterr().out.rstrip().split("\n\n")[-1].splitlines()
    assert last[0] == "examples:" and [line.split()[:2] for line in last[1:]] == [["inrbridge", name]] * 2


def test_examples_are_parted_from_the_text():
    assert split_examples("A.\n\nB.\n\nexamples:\n  inrbridge a\n  inrbridge b\n") == (
        "A.\n\nB.",
        "examples:\n  inrbridge a\n  inrbridge b",
    )
    assert split_examples("inrbridge does it.") == ("inrbridge does it.", "")
    assert split_examples("") == ("", "")


def test_formats_lists_what_is_there_and_what_could_be(capsys, monkeypatch):
    monkeypatch.setattr(plugins, "distributions", lambda: [])  # installed plugins are out of sight, not switched off
    plugins.rescan().register(RippleFormat())
    assert main(["formats"]) == 0
    out = capsys.readouterr().out
    assert "pip install inrbridge-ngp" in out and out.splitlines()[0].split() == [
        "name",
        "plugin",
        "version",
        "suffixes",
        "status",
    ]
    assert main(["formats", "--load", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ripple"]["status"] == "loaded" and rows["ripple"]["can"] == ["open", "build"]
    assert rows["grid"]["plugin"] == "inrbridge" and "not installed" in rows["nerf"]["status"]


def test_formats_and_help_are_quick_and_import_no_torch():
    for words in (["formats"], ["--help"], ["info", "--help"]):
        done = process("-X", "importtime", "-m", "inrbridge", *words)
        modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert done.returncode == 0 and not modules & {"torch", "numpy", "scipy"}, words


def test_models_lists_the_architectures_and_shows_one(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "for", "is"] and [line.split()[0] for line in lines[1:]] == model_names()
    assert any(line.split()[:2] == ["unet", "dense"] for line in lines)
    assert main(["models", "resnet"]) == 0
    out = capsys.readouterr().out
    assert "for classification" in out and "Options:" in out and re.search(r"^neighbors +not set$", out, re.MULTILINE)
    assert main(["models", "resnet", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["options"]["blocks"] == [2, 2, 2] and set(shown["options"]) == set(model_options("resnet"))
    assert main(["models", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == model_names()


def test_models_of_others_are_shown_and_unknown_ones_are_told(capsys):
    assert main(["models", "fake_training:SmallNet"]) == 0
    assert "A pointwise net of value and coordinates" in capsys.readouterr().out
    assert main(["models", "resnt"]) == 2
    assert 'Did you mean "resnet"?' in capsys.readouterr().err


def test_info_tells_format_domain_channels_and_parameters(capsys, file):
    assert main(["info", file, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["why"], facts["parameters"]) == ("ripple", "named in the file", 16)
    assert facts["architecture"] == {"waves": 4} and facts["channel_names"] == ["wave0", "wave1"]
    assert main(["info", file, "--format", "ripple", "--set", "gain=2"]) == 0
    assert "asked for" in capsys.readouterr().out
    assert main(["info", file, "--set", "gian=2"]) == 2
    assert 'Did you mean "gain"?' in capsys.readouterr().err
    assert main(["info", file, "--set", "gain"]) == 2


def test_info_all_shows_every_verdict(capsys, file, tmp_path):
    assert main(["info", file, "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ripple") and line.endswith("yes") for line in lines)
    assert any(line.startswith("grid") and line.endswith("no") for line in lines)
    (tmp_path / "junk").write_text("junk")
    assert main(["info", str(tmp_path / "junk"), "--all", "--json"]) == 0
    assert not any(verdict["is_recognized"] for verdict in json.loads(capsys.readouterr().out)["verdicts"])


@pytest.mark.parametrize("content", [None, b"", b"junk", b"PK\x03\x04 cut"])
def test_info_of_what_cannot_be_opened(capsys, tmp_path, content):
    if content is not None:
        (tmp_path / "x.pt").write_bytes(content)
    assert main(["info", str(tmp_path / "x.pt")]) == (2 if content == b"junk" else 1)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("inrbridge info: ") and err.count("\n") == 1 and str(tmp_path / "x.pt") in err


def test_doctor_reports_versions_plugins_and_self_checks(capsys, host):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch" in out and "ripple" in out and out.endswith("all is well\n")

    class Ill(RippleFormat):
        name = "ill"

        def self_check(self):
            return ["its table is missing: run nothing"]

    class Worse(Ill):
        name = "worse"

        def self_check(self):
            return 1 / 0

    host.register(Ill())
    host.register(Worse())
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [trouble.split(":")[0] for trouble in report["troubles"]] == ['plugin "ill"', 'plugin "worse"']


def test_a_broken_plugin_breaks_neither_help_nor_listing_nor_doctor(tmp_path, monkeypatch, capsys):
    install(tmp_path / "site", "bad", "raise RuntimeError('boom')")
    install(tmp_path / "site", "odd", "x = 1")
    environment = {"path": tmp_path / "site", "INRBRIDGE_PLUGINS": None, "INRBRIDGE_STRICT": "1"}
    for words, code in ((["--help"], 0), (["formats"], 0), (["doctor"], 1)):
        done = process("-m", "inrbridge", *words, **environment)
        assert done.returncode == code and "Traceback" not in done.stderr, (words, done.stderr)
    assert "RuntimeError: boom" in done.stdout and "pip install -U inrbridge-bad" in done.stdout
    assert "@inrbridge.hookimpl" in done.stdout
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "bad,odd")
    plugins.rescan()
    assert main(["formats", "--load"]) == 0
    assert capsys.readouterr().out.count("failed: inrbridge doctor") == 2


def test_output_cut_short_by_its_reader_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m inrbridge formats --json | head -n 1", shell=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": ROOT}, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[\n" and "Traceback" not in done.stderr
