"""The distributions agree: versions, entry points, extras and requirement files name the same plugins."""

import tomllib
from pathlib import Path

import pytest

import inrbridge
from inrbridge.known import KNOWN_PLUGINS

ROOT = Path(__file__).parents[1]
if not (ROOT / "plugins").is_dir():
    pytest.skip("runs in a checkout: it compares the files of the distributions", allow_module_level=True)
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def read(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


@pytest.fixture(scope="module")
def core():
    return read(ROOT)["project"]


@pytest.fixture(params=PLUGINS, ids=[folder.name for folder in PLUGINS])
def plugin(request):
    return request.param


def test_there_are_plugins_and_each_folder_is_one():
    folders = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir() and any(path.glob("*"))}
    assert {folder.name for folder in PLUGINS} == folders and {"siren", "fourier"} <= folders


def test_the_core_states_its_version_once_more_in_code(core):
    assert core["version"] == inrbridge.__version__


def test_a_plugin_is_named_after_its_format(plugin):
    project = read(plugin)["project"]
    assert project["name"] == f"inrbridge-{plugin.name}"
    assert project["entry-points"] == {"inrbridge": {plugin.name: f"inrbridge_{plugin.name}"}}
    module = plugin / f"inrbridge_{plugin.name}"
    assert module.is_dir() or module.with_suffix(".py").is_file()
    assert plugin.name in KNOWN_PLUGINS


def test_a_plugin_shares_the_minor_version_of_the_core(plugin, core):
    project, (major, minor, _) = read(plugin)["project"], core["version"].split(".")
    assert project["version"].split(".")[:2] == [major, minor]
    window = f">={major}.{minor},<{major}.{int(minor) + 1}"
    assert f"inrbridge{window}" in project["dependencies"]
    assert core["optional-dependencies"][plugin.name] == [f"inrbridge-{plugin.name}{window}"]
    assert project["requires-python"] == core["requires-python"]


def test_a_plugin_is_in_all_and_in_both_requirement_files(plugin, core):
    (everything,) = core["optional-dependencies"]["all"]
    assert plugin.name in everything.partition("[")[2].rstrip("]").split(",")
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert f"-e plugins/{plugin.name}" in requirements(name)


def test_requirement_files_install_the_core_and_every_plugin_editable():
    for name, extra in [("requirements.txt", "demo"), ("requirements-dev.txt", "dev")]:
        assert requirements(name) == {f"-e .[{extra}]", *(f"-e plugins/{folder.name}" for folder in PLUGINS)}


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda folder: folder.name)
def test_readme_license_and_build_backend(folder):
    config = read(folder)
    assert (folder / config["project"]["readme"]).stat().st_size > 200
    assert config["project"]["license-files"] == ["LICENSE"]
    assert (folder / "LICENSE").read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert config["build-system"] == {"requires": ["hatchling"], "build-backend": "hatchling.build"}  # nothing is compiled


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda folder: folder.name)
def test_no_dependency_is_a_path_or_a_url(folder):
    project = read(folder)["project"]
    extras = project.get("optional-dependencies", {}).values()
    assert not [need for needs in (project["dependencies"], *extras) for need in needs if "@" in need or "/" in need]


def test_every_extra_resolves_to_known_ones(core):
    extras = core["optional-dependencies"]
    for needs in extras.values():
        for need in needs:
            if need.startswith("inrbridge["):
                assert set(need.partition("[")[2].rstrip("]").split(",")) <= set(extras)
