"""A stranger's walk with a checkpoint: weights and code to a model folder, which then works without the code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import inrbridge
from inrbridge import Box, GridField, pack, save_field
from inrbridge.cli.main import main
from inrbridge.training import load_model

CODE = '''
"""Networks as a stranger has them."""

import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self, width=4, classes=3, flat=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width * (16 if flat else 1), classes)
        self.flat = flat

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        x = x.flatten(1) if self.flat else x.mean((2, 3))
        return self.head(x)


class Maps(nn.Sequential):
    def __init__(self, classes=2):
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1))


number = 7
'''
NORMAL = ["--mean", "0.5,0.4,0.3", "--std", "0.2,0.3,0.4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with code, checkpoints of several kinds, and a store of images in two formats."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "stranger_nets.py").write_text(CODE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        import stranger_nets
    finally:
        sys.path.remove(str(folder))
    torch.manual_seed(0)
    tiny, flat, maps = stranger_nets.Tiny(), stranger_nets.Tiny(flat=True), stranger_nets.Maps()
    state = tiny.state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "tiny.pth")
    save_file(flat.state_dict(), folder / "flat.safetensors")
    torch.save(maps.state_dict(), folder / "maps.th", _use_new_zipfile_serialization=False)
    torch.save({"model": state, "ema": state}, folder / "twice.pt")
    generator = torch.Generator().manual_seed(1)
    for i in range(18):
        (folder / "fields" / f"c{i % 3}").mkdir(parents=True, exist_ok=True)
        image = GridField(torch.rand(8, 8, 3, generator=generator), Box.centered(2), channel_names=("red", "green", "blue"),
                          interpolation="cubic" if i % 2 else "linear")  # fmt: skip
        save_field(image, folder / "fields" / f"c{i % 3}" / f"{i}.safetensors")
    pack(folder / "fields", folder / "store")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def converted(place):
    words = ["convert", str(place / "tiny.pth"), "--arch", "stranger_nets:Tiny", "--resolution", "8x8", "--classes", "c0,c1,c2"]
    before = os.getcwd()
    os.chdir(place)
    try:
        assert main([*words, *NORMAL, "-o", "net"]) == 0
    finally:
        os.chdir(before)
    return place / "net"


def images(folder):
    paths = sorted((folder / "fields").rglob("*.safetensors"))
    return torch.stack([inrbridge.open_field(path).samples.detach() for path in paths])


def test_the_folder_equals_the_network_on_its_pixels(place, converted):
    import stranger_nets

    discrete = stranger_nets.Tiny()
    state = torch.load(place / "tiny.pth", weights_only=True)["state_dict"]
    discrete.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    x = images(place).permute(0, 3, 1, 2)
    net = load_model(converted)
    assert net.card.points == {"sampler": "grid", "n": 64, "seed": 0} and net.card.task == "classification"
    assert net.card.channels == ["red", "green", "blue"] and net.card.class_names == ["c0", "c1", "c2"]
    torch.testing.assert_close(net(x), discrete.eval()((x - mean) / std))
    text = (converted / "README.md").read_text(encoding="utf-8")
    assert "inrbridge convert" in text and "steps" not in text and len(text) < 2000


def test_it_opens_in_a_process_that_knows_no_code(place, converted, tmp_path):
    script = (
        "import json, sys\nfrom inrbridge.training import evaluate, load_model, predict\n"
        f"net = load_model({str(converted)!r})\n"
        f"found = evaluate(net, {str(place / 'store')!r}, device='cpu')\n"
        "assert not any(name == 'stranger_nets' for name in sys.modules)\n"
        "print(json.dumps(found))\n"
    )
    root = str(Path(inrbridge.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, text=True, capture_output=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads(done.stdout)
    assert facts["fields"] == 18 and (facts["sampler"], facts["n"]) == ("grid", 64)


def test_eval_and_predict_take_it_on_any_points(place, converted, capsys, tmp_path):
    words = ["eval", str(converted), str(place / "store"), "--sampler", "grid", "lattice", "sobol", "--n", "64", "256", "--json"]
    assert main([*words, "--device", "cpu"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(r["sampler"], r["n"]) for r in results] == [(s, n) for s in ("grid", "lattice", "sobol") for n in (64, 256)]
    fields = sorted(map(str, (place / "fields").rglob("*.safetensors")))
    assert main(["predict", str(converted), *fields, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    x = images(place).permute(0, 3, 1, 2)
    expected = load_model(converted)(x).softmax(-1)
    found = torch.tensor([[a["probabilities"][c] for c in ("c0", "c1", "c2")] for a in answers])
    torch.testing.assert_close(found, expected.detach().float(), atol=1e-5, rtol=0)
    # the grid is no random set of points: told, and another sampler serves
    assert main(["predict", str(converted), fields[0], "--tol", "0.5"]) == 2
    assert "the same for every seed" in capsys.readouterr().err
    assert main(["predict", str(converted), fields[0], "--tol", "0.5", "--sampler", "sobol", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["points"] >= 64


def test_predict_takes_images_and_folders_of_them(place, converted, capsys, tmp_path):
    from PIL import Image

    pixels = torch.randint(0, 256, (3, 8, 8, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert main(["predict", str(converted), str(tmp_path), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    expected = load_model(converted)(pixels.permute(0, 3, 1, 2).float() / 255).softmax(-1)
    found = torch.tensor([list(a["probabilities"].values()) for a in answers])
    torch.testing.assert_close(found, expected.detach().float(), atol=1e-5, rtol=0)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    assert main(["predict", str(converted), *(str(tmp_path / f"{i}.png") for i in range(2)), "--json"]) == 1
    out, err = capsys.readouterr()
    assert "label" in json.loads(out)[0] and "1.png" in json.loads(out)[1]["error"] and "1.png" in err


def test_it_tells_what_was_converted(here, tmp_path, capsys):
    words = ["convert", "flat.safetensors", "--arch", "stranger_nets.py:Tiny", "--arch-options", "flat=true"]
    words += ["--resolution", "8x8"]
    assert main([*words, "-o", str(tmp_path / "a"), "--levels", "points", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    levels = {tuple(level["shape"]): level for level in facts["levels"]}
    assert levels[8, 8]["why"] == "" and levels[4, 4]["why"] and "stranger_nets.py" in levels[4, 4]["line"]
    assert facts["difference_on_grid"] < 1e-6 and facts["classes"] == ["0", "1", "2"]
    words += ["--levels", "inner-grids", "--reader", "polynomials", "--kernel", "spline", "--channels", "r,g,b"]
    assert main([*words, "-o", str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "level 4x4" in out and "own grid" in out and "next: inrbridge eval" in out
    net = load_model(tmp_path / "b")
    assert (net.options["levels"], net.options["reader"], net.options["kernel"]) == ("inner-grids", "polynomials", "spline")
    assert net.card.channels[0] == "red" and "--reader polynomials" in net.card.command


def test_it_is_calibrated_for_points(here, converted, tmp_path, capsys):
    words = ["convert", "tiny.pth", "--arch", "stranger_nets:Tiny", "--resolution", "8x8", *NORMAL, "--calibrate", "store"]
    assert main([*words, "--points", "64", "--sampler", "sobol", "--json", "-o", str(tmp_path / "net")]) == 0
    assert json.loads(capsys.readouterr().out)["calibrated"] == ["64 sobol points, on 18 fields"]
    net, plain, x = load_model(tmp_path / "net"), load_model(converted), images(here).permute(0, 3, 1, 2)
    fields = [inrbridge.open_field(path) for path in sorted((here / "fields").rglob("*.safetensors"))]
    torch.testing.assert_close(net(x), plain(x), atol=0, rtol=0)  # on the pixels nothing has changed
    points = inrbridge.sampling.sobol(net.domain, 64, torch.Generator().manual_seed(9))
    off, before = ((each(fields, points) - plain(x)).square().mean() for each in (net, plain))
    assert off < before
    assert main([*words, "--calibrate-fields", "5", "-o", str(tmp_path / "few")]) == 2
    assert "at least 16" in capsys.readouterr().err


def test_maps_become_output_fields(here, tmp_path, capsys):
    words = ["convert", "maps.th", "--arch", "stranger_nets:Maps", "--resolution", "8x6", "--classes", "ground,disc"]
    assert main([*words, "-o", str(tmp_path / "net")]) == 0
    assert "predict" in capsys.readouterr().out
    card = load_model(tmp_path / "net").card
    assert (card.task, card.activation, card.points["sampler"], card.points["n"]) == ("dense", "softmax", "grid:8x6", 48)
    generator = torch.Generator().manual_seed(0)
    gray = GridField(torch.rand(8, 6, 1, generator=generator), Box.centered(2), channel_names=("gray",))
    save_field(gray, tmp_path / "gray.safetensors")
    assert main(["predict", str(tmp_path / "net"), str(tmp_path / "gray.safetensors"), "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    output = inrbridge.open_field(tmp_path / "out" / "gray.safetensors")
    import stranger_nets

    maps = stranger_nets.Maps()
    maps.load_state_dict(torch.load("maps.th", weights_only=True))
    expected = maps(gray.samples.permute(2, 0, 1)[None]).softmax(1)[0].flatten(1).T
    pixels = load_model(tmp_path / "net").pixels().points
    torch.testing.assert_close(output(pixels), expected.detach(), atol=1e-5, rtol=0)
    assert output.channel_names == ("ground", "disc")


def test_an_existing_folder_is_replaced_only_when_asked(here, tmp_path, capsys):
    words = ["convert", "tiny.pth", "--arch", "stranger_nets:Tiny", "--resolution", "8x8", "-o"]
    out = tmp_path / "net"
    assert main([*words, str(out)]) == 0 and main([*words, str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    (out / "note.txt").write_text("mine")
    assert main([*words, str(out), "--force"]) == 0 and (out / "note.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    assert main([*words, str(tmp_path / "other"), "--force"]) == 2
    assert main([*words, str(tmp_path / "other" / "note.txt")]) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none.pth", "--arch", "stranger_nets:Tiny"], 1, "none.pth"),
        (["tiny.pth", "--arch", "stranger_nets"], 2, "MODULE:NAME"),
        (["tiny.pth", "--arch", "no_such_nets:Tiny"], 2, "no_such_nets"),
        (["tiny.pth", "--arch", "stranger_nets:Tinny"], 2, "Tinny"),
        (["tiny.pth", "--arch", "stranger_nets:number"], 2, "cannot be called"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--arch-options", "wide=3"], 2, "--arch-options"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--arch-options", "wide"], 2, 'Got --arch-options "wide"'),
        (["tiny.pth", "--arch", "builtins:dict"], 2, "torch.nn.Module"),
        (["tiny.pth", "--arch", "stranger_nets:Maps"], 2, "lack 0.weight, 0.bias, 2.weight and 1 more"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--arch-options", "width=6"], 1, "conv1.weight of (4, 3, 3, 3)"),
        (["twice.pt", "--arch", "stranger_nets:Tiny"], 2, "ema., model."),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--mean", "0.5,0.5,0.5"], 2, "expected both"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--mean", "a,b", "--std", "1,1"], 2, "numbers between commas"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--mean", "0,0,0", "--std", "1,1,0"], 2, "above 0"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--domain", "ball"], 2, "centered, unit, torus"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--resolution", "8by8"], 2, "--resolution"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--resolution", "8"], 2, "along 2 axes"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--mean", "-1,0", "--std", "1,1,1"], 2, "the mean [-1.0, 0.0]"),
        (["tiny.pth", "--arch", "stranger_nets:Tiny", "--classes", "a,b"], 2, "2 classes, expected 3"),
        (["stranger_nets.py", "--arch", "stranger_nets:Tiny"], 1, "stranger_nets.py"),
    ],
)
def test_errors_are_one_sentence(here, tmp_path, capsys, words, code, said):
    given = words if "--resolution" in words else [*words, "--resolution", "8x8"]
    assert main(["convert", *given, "-o", str(tmp_path / "net")]) == code
    out, err = capsys.readouterr()
    assert said in err and "Traceback" not in err and err.count("\n") == 1 and out == "" and not (tmp_path / "net").exists()


def test_one_of_several_states_is_chosen_by_its_prefix(here, tmp_path):
    words = ["convert", "twice.pt", "--arch", "stranger_nets:Tiny", "--resolution", "8x8", "--prefix", "model."]
    assert main([*words, "-o", str(tmp_path / "net")]) == 0


def test_a_file_that_would_run_code_is_refused(here, tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    torch.save({"conv": Trap()}, tmp_path / "trap.pth")
    assert main(["convert", str(tmp_path / "trap.pth"), "--arch", "stranger_nets:Tiny", "--resolution", "8x8", "-o", "x"]) == 1
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "ran").exists()


def test_help_ends_with_two_examples(capsys):
    assert main(["convert", "--help"]) == 0
    assert capsys.readouterr().out.count("  inrbridge convert ") == 2


def test_converted_nets_are_no_architectures_to_choose(capsys):
    assert main(["models"]) == 0
    assert "converted" not in capsys.readouterr().out
