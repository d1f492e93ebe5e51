"""Bad input of every kind, as a stranger would give it: one sentence, the right exit code, and nothing written is lost."""
# ruff: noqa: F811 (tests name the fixtures that they import)

import json
import shutil
from pathlib import Path

import pytest
import torch
from bad_files import SMALL, Evil, Twin, contents, files, host, made, told  # noqa: F401 (fixtures too)
from safetensors.torch import save_file

from inrbridge import Box, GridField, pack, save_field
from inrbridge.cli.main import main
from inrbridge.data import Store


@pytest.mark.parametrize(
    ("line", "code", "got", "advice"),
    [
        # a missing file
        ("info gone.pt", 1, "nothing at gone.pt", "check the path"),
        ("preview gone.pt", 1, "nothing at gone.pt", "check the path"),
        ("check grid gone.pt", 1, "nothing at gone.pt", "check the path"),
        ("fit gone.png -o s", 1, "gone.png", "check the path"),
        ("pack gone -o s", 1, "gone", "check the path"),
        ("train gone.toml", 1, "gone.toml", "inrbridge config init"),
        ("train --set data.store=gone", 1, "no store at gone", "inrbridge fit"),
        ("eval gone", 1, "gone", "inrbridge train"),
        ("eval run gone", 1, "no store at gone", "inrbridge fit"),
        ("predict gone good.safetensors", 1, "gone", "inrbridge train"),
        ("predict run gone.pt", 1, "nothing at gone.pt", "check the path"),
        ("config check gone.toml", 1, "gone.toml", "inrbridge config init"),
        # no field, or of no known format
        ("info text.txt", 2, "6 bytes", "--format"),
        ("info text.txt --format grid", 1, "text.txt", "grid"),
        ("info empty", 2, "empty folder", "check the path"),
        ("info fields", 2, "folder of", "name the files in it"),
        ("info store", 2, "a store", "--item"),
        ("info run", 2, "a trained model", "inrbridge predict run"),
        ("info image.png", 2, "a signal (png)", "inrbridge fit image.png"),
        ("info good.safetensors --format gird", 2, '"gird"', 'Did you mean "grid"'),
        ("check gird", 2, '"gird"', 'Did you mean "grid"'),
        ("fit ok.npy -o s --format gird", 2, '"gird"', 'Did you mean "grid"'),
        ("fit text.txt -o s", 1, "ends in .txt", "open_field"),
        ("pack text.txt -o s", 2, "text.txt", "--format"),
        ("predict run store", 1, "a store", "inrbridge eval"),
        ("eval run run", 1, "no store at run", "inrbridge fit"),
        ("eval store", 1, "no model", "inrbridge train"),
        # truncated or lying files, and files that would run code
        ("info cut.safetensors", 1, "truncated", "download it again"),
        ("preview cut.safetensors", 1, "truncated", "download it again"),
        ("pack cut.safetensors -o s", 1, "truncated", "download it again"),
        ("predict run cut.safetensors", 1, "truncated", "download it again"),
        ("info huge.safetensors", 1, "claims 1125899906842624 bytes", "download it again"),
        ("info zero.pt", 1, "empty", "download it again"),
        ("info evil.pt", 1, "never runs code", "save the tensors alone"),
        ("pack evil.pt -o s", 1, "never runs code", "save the tensors alone"),
        # NaN, keys, options
        ("fit nan.npy -o s --format grid", 1, "16 NaN", "fill or drop"),
        ("fit two.npz -o s --format grid", 2, "a, b", "--key"),
        ("fit ok.npy -o s --format grid --set steps=5", 2, "steps=5", "--steps 5"),
        ("fit ok.npy -o s --format grid --set shpae=5", 2, '"shpae"', 'Did you mean "shape"'),
        ("fit ok.npy -o s --format grid --device tpu0", 2, '"tpu0"', "cuda:N"),
        ("fit ok.npy -o text.txt --format grid", 1, "text.txt", "choose a folder"),
        ("check grid --set foo=1", 2, '"foo"', "expected among"),
        ("preview good.safetensors --axes 0,2", 2, "axes (0, 2)", "between 0 and 1"),
        ("preview good.safetensors --at 0=9 --axes 1", 2, "Got 9", "between -1 and 1"),  # a point outside the domain
        ("preview good.safetensors -o gone/x.png", 1, "gone/x.png", "folder exists"),
        # zero points, and points that a name does not give
        ("eval run --n 0", 2, '"0"', "at least 1"),
        ("predict run good.safetensors --n 0", 2, '"0"', "at least 1"),
        ("eval run --batch-size 0", 2, '"0"', "at least 1"),
        ("train --set points.n=0", 2, "Got 0", "at least 1"),
        ("eval run --sampler importance", 2, '"importance"', "one of: lattice"),
        ("config check --set data.store=store --set points.sampler=points", 2, '"points"', "one of: lattice"),
        # the wrong number of coordinates
        ('config check --set data.store=store --set data.domain={type="box",low=[0],high=[1]}', 1, "2 coordinates", "axes="),
        ('config check --set data.store=store --set data.domain={type="box",low=[0]}', 2, "without 'high'", "to_config"),
        # typos in a configuration, and labels
        ("train typo.toml", 2, "optimizer.learning_rte", "expected one of: name, lr"),
        ("config show typo.toml", 2, "optimizer.learning_rte", "expected one of: name, lr"),
        ("train prose.toml", 2, "not TOML", "inrbridge config init"),
        ("config check --set optimizer.lrr=1", 2, "optimizer.lrr", 'Did you mean "optimizer.lr"'),
        ("train --set data.store=store --set data.train_split=trian", 1, '"trian"', "test, train"),
        ("train --set data.store=store --set run.out=text.txt", 2, "text.txt", "run.out=NAME"),
        ("config init empty --force", 2, "which is a folder", "config.toml"),
        ("config frob", 2, "frob", "--help"),
        ("demo --seed x", 2, "'x'", "--help"),
        ("demo --quikc", 2, "--quikc", 'Did you mean "--quick"'),
        ("formats all", 2, "all", "--help"),
        ("predict run good.safetensors -o text.txt", 1, "text.txt", "check the path"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_exit_code(files, made, capsys, line, code, got, advice):
    before = contents(made)
    error = told(capsys, line.split(" "), code) if "predict run" not in line else told_by_predict(capsys, line.split(), code)
    assert got in error and advice in error
    assert contents(made) == before and not (files / "executed").exists()
    assert not (files / "s" / "manifest.json").exists()  # no empty store is left behind


def told_by_predict(capsys, words, code) -> str:
    """`predict` prints one line for each file that fails, and its table of the others."""
    assert main(words) == code
    return capsys.readouterr().err


def test_two_formats_that_claim_one_file(files, host, capsys):
    host.register(Twin())
    for words in (
        ["info", "claimed.safetensors"],
        ["preview", "claimed.safetensors"],
        ["pack", "claimed.safetensors", "-o", "s"],
    ):
        error = told(capsys, words, 2)
        assert '"ripple"' in error and '"twin"' in error and "--format ripple" in error


def test_a_header_that_begins_as_a_pickle_does(files, capsys):
    """A safetensors header of 640 bytes has the first bytes of a pickle of protocol 2."""
    names = {"inrbridge": json.dumps({"format": "grid"}), "note": ""}
    for extra in range(700):
        save_file({"samples": torch.zeros(2, 2, 1)}, "odd.safetensors", {**names, "note": "x" * extra})
        if Path("odd.safetensors").read_bytes()[:2] in (b"\x80\x02", b"\x80\x03"):
            break
    else:
        pytest.fail("no header of this length came about")
    assert main(["info", "odd.safetensors", "--all", "--json"]) == 0
    assert "a safetensors file" in json.loads(capsys.readouterr().out)["found"]


def test_a_file_that_may_not_be_read(files, capsys, monkeypatch):
    real = Path.open

    def locked(path, *args, **options):
        if path.name == "good.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", locked)
    for words in (["info", "good.safetensors"], ["preview", "good.safetensors"], ["pack", "good.safetensors", "-o", "s"]):
        assert "permission denied; change its permissions" in told(capsys, words, 1)
    other = files / "fields" / "test" / "down" / "05.safetensors"
    assert main(["predict", "run", "good.safetensors", str(other)]) == 1
    out, error = capsys.readouterr()
    assert "05.safetensors" in out and "permission denied" in error


def test_one_bad_file_among_good_ones(files, capsys):
    good = sorted(str(path) for path in (files / "fields" / "test").rglob("*.safetensors"))
    words = ["predict", "run", good[0], "cut.safetensors", "evil.pt", "gone.pt", *good[1:], "-o", "answers", "--json"]
    assert main(words) == 1
    out, error = capsys.readouterr()
    answers = json.loads(out)
    assert [answer["path"] for answer in answers if "label" in answer] == good
    assert error.count("inrbridge predict: ") == 3 and "Traceback" not in error and not Path("executed").exists()
    assert json.loads(Path("answers/predictions.json").read_text()) == answers
    assert main(["pack", *good, "cut.safetensors", "-o", "packed"]) == 1
    assert len(Store("packed")) == len(good) and "truncated" in capsys.readouterr().err


def test_a_field_that_does_not_fit_the_model_is_named(files, capsys):
    save_field(GridField(torch.ones(4, 4, 4, 1), Box.centered(3)), "solid.safetensors")
    assert main(["predict", "run", "solid.safetensors", "good.safetensors"]) == 1
    out, error = capsys.readouterr()
    assert error.startswith("inrbridge predict: solid.safetensors: Got a field on Box") and "good.safetensors" in out


def test_info_all_says_what_is_wrong_with_a_file(files, capsys):
    for name, text in (("cut.safetensors", "truncated"), ("evil.pt", "pickle")):
        assert main(["info", name, "--all"]) == 0
        assert text in capsys.readouterr().out.splitlines()[0]


def test_a_damaged_store_is_refused_and_left_as_it_is(files, made, capsys):
    shutil.copytree(made / "store", "torn")
    shard = next(Path("torn").glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:200])
    before = contents(Path("torn"))
    for words in (["eval", "run", "torn"], ["train", "--set", "data.store=torn", "--set", "run.out=new"],
                  ["config", "check", "--set", "data.store=torn"], ["preview", "torn", "--item", "0"],
                  ["pack", "good.safetensors", "-o", "torn"], ["fit", "ok.npy", "-o", "torn", "--format", "grid"]):  # fmt: skip
        error = told(capsys, words, 1)
        assert str(shard) in error and "200 bytes" in error and "restore it from a copy" in error
    assert contents(Path("torn")) == before and not Path("new").exists()


def test_a_label_that_is_missing(files, capsys):
    fields = sorted((files / "fields").rglob("*.safetensors"))[:3]
    pack(fields, "bare", labels=["across", None, "down"])
    words = ["--set", "data.store=bare", "--set", "data.train_split=", "--set", "data.eval_split="]
    for verb in (["train", "--set", "run.out=new"], ["config", "check"]):
        error = told(capsys, [*verb, *words], 1)
        assert "1 of 3 items without a label" in error and fields[1].stem in error and "again with labels" in error
    assert "without a label" in told(capsys, ["eval", "run", "bare", "--split", ""], 1)
    assert not Path("new").exists()
