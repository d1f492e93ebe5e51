"""The public names: a change of this list is a change of the promise to users and to the authors of plugins."""

import inspect
import subprocess
import sys

import pytest

import inrbridge
import inrbridge.testing

NAMES = {
    "__version__",
    "Ball", "Box", "Domain", "Manifold", "Product", "Region", "Sphere", "Torus", "Weighted",
    "Discretization", "discrepancy", "integrate", "sampling",
    "Field", "FunctionField", "GridField", "channel_names", "query", "transforms",
    "FieldStack", "stack",
    "Assumptions", "Format", "Probe", "hookimpl", "read_native", "read_tensors", "register", "write_native",
    "build_field", "identify", "open_field", "preview", "save_field",
    "FieldDataset", "LabelledPoints", "TargetFields", "ModelField", "Store", "convert", "distill", "fit", "pack",
    "batched", "encodings", "foreign", "frames", "models", "nn", "options", "radiance",
    "evaluate", "generate", "predict", "train",
    "InrBridgeError", "errors",
}  # fmt: skip
TESTING = {"FormatConformance", "LAWS", "Result", "check_conformance", "damaged", "only_plugins"}


def test_the_list_is_as_promised():
    assert set(inrbridge.__all__) == NAMES
    assert sorted(dir(inrbridge)) == sorted(inrbridge.__all__)
    assert set(inrbridge.testing.__all__) == TESTING


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__", "hookimpl"}))
def test_each_name_resolves_and_says_what_it_is(name):
    value = getattr(inrbridge, name)
    text = inspect.getdoc(value) or ""
    assert len(text.split()) > 3, f"{name} has no docstring"


@pytest.mark.parametrize("name", sorted(TESTING - {"LAWS"}))
def test_each_name_of_the_kit_resolves_and_says_what_it_is(name):
    assert len((inspect.getdoc(getattr(inrbridge.testing, name)) or "").split()) > 3


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'opne_field'"):
        inrbridge.opne_field  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import inrbridge",
        "import inrbridge.errors, inrbridge.hookspecs, inrbridge.formats",
        "from inrbridge.cli.main import build_parser, VERBS\nfor verb in VERBS: build_parser(verb)",
        "from inrbridge.cli.formats import list_formats\nlist_formats()",
    ],
    ids=["import", "errors and formats", "every --help", "the list of formats"],
)
def test_what_must_be_quick_imports_no_torch(statement):
    code = f"{statement}\nimport sys\nassert not {{'torch', 'numpy', 'scipy'}} & set(sys.modules), sorted(sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
