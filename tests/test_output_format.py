"""An output on disk: the net and its input in one file, which opens without the run, and runs nothing that it names."""

import json
from pathlib import Path

import pytest
import torch
from native_headers import rewrite

from inrbridge import Box, FieldDataset, FunctionField, GridField, open_field, pack, preview, save_field, stack
from inrbridge.cli.main import main
from inrbridge.data import align
from inrbridge.errors import CannotOpen, CannotSave, ConfigError, InrBridgeError, ShapeMismatch
from inrbridge.models import build_model
from inrbridge.models.dense import DenseNet
from inrbridge.native import native_header
from inrbridge.nn import Conv
from inrbridge.outputs import ModelField, OutputFormat
from inrbridge.sampling.fixed import fixed_points
from inrbridge.testing import FormatConformance

BOX = Box.centered(2)
POINTS = {"sampler": "lattice", "n": 64, "seed": 1}
COORDS = torch.rand(7, 3, 2, generator=torch.Generator().manual_seed(5)) * 2 - 1


class Strange(DenseNet):
    """A net of no name among those of inrbridge."""

    name = "strange"

    def __init__(self, domain, in_channels, classes, *, skip=False, generator=None):
        super().__init__(domain, in_channels, classes, 64, {"skip": skip}, width=4, skip=skip, generator=generator)
        self.conv = Conv(in_channels, 4, 3, spacing=2 / 8, generator=generator)

    def features(self, sampled):
        return self.conv(sampled)


def unet(**options):
    options = {"widths": [4, 6], "convs": 1, "resolution": 8, "generator": torch.Generator().manual_seed(0), **options}
    return build_model("unet", BOX, 1, 3, **options).eval()


def gray(side=6, seed=0, domain=BOX):
    return GridField(torch.rand(side, side, 1, generator=torch.Generator().manual_seed(seed)), domain, channel_names=("gray",))


def kept(net=None, input=None, **options):
    return ModelField(net or unet(), gray() if input is None else input, **{"points": POINTS, **options})


class TestOutput(FormatConformance):
    format = OutputFormat()


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("activation", ["identity", "softmax", "sigmoid"])
def test_it_is_the_output_of_the_net_and_stays_so_on_disk(tmp_path, skip, activation):
    net = unet(skip=skip)
    field = kept(net, activation=activation, channel_names=("a", "b", "c"))
    raw = net(gray(), fixed_points(BOX, **POINTS))[0](COORDS)
    truth = {"identity": raw, "softmax": raw.softmax(-1), "sigmoid": raw.sigmoid()}[activation]
    torch.testing.assert_close(field(COORDS), truth)
    save_field(field, tmp_path / "out.safetensors")
    again = open_field(tmp_path / "out.safetensors")
    assert torch.equal(again(COORDS), field(COORDS))
    assert (again.format, again.channel_names, again.are_classes) == ("output", ("a", "b", "c"), activation == "softmax")
    assert native_header(again) == native_header(field)


def test_net_and_input_are_copied_and_frozen():
    net, input = unet().train(), gray()
    field = kept(net, input)
    before = field(COORDS)
    with torch.no_grad():
        net.head[0].weight.mul_(2)
        input.samples.mul_(3)
    assert net.training and net.head[0].weight.requires_grad
    assert torch.equal(field.train()(COORDS), before) and not field.training


def test_the_trunk_runs_once_and_again_when_the_numbers_change():
    field, runs = kept(), []
    trunk = field.net.features
    field.net.features = lambda sampled: runs.append(1) or trunk(sampled)
    first = field(COORDS)
    field(COORDS[:2])
    assert len(runs) == 1
    with torch.no_grad():
        field.input.samples.mul_(2)
    assert not torch.allclose(field(COORDS), first) and len(runs) == 2
    field.load_state_dict(kept().state_dict())
    assert torch.equal(field(COORDS), first)


def test_a_stack_of_outputs_equals_the_loop_whatever_was_remembered():
    fields = [kept(unet(), gray(seed=seed)) for seed in range(3)]
    fields[0](COORDS)  # remembered by the template of the stack
    together = stack(fields)
    assert len(together.groups) == 1
    flat = COORDS.reshape(-1, 2)
    truth = torch.stack([field(flat) for field in fields])
    torch.testing.assert_close(together(flat), truth)
    torch.testing.assert_close(together(torch.stack([flat, flat, flat])), truth)
    assert not torch.allclose(truth[0], truth[1])


def test_the_input_is_seen_as_the_net_saw_it(tmp_path):
    box = Box((0.0, 2.0), (3.0, 4.0))
    colours = GridField(
        torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(2)), box, channel_names=("red", "green", "blue")
    )
    view = {"channels": ["gray"], "crop": [[0.5, 2.0], [2.0, 3.0]], "axes": [1, 0]}
    net = unet()
    truth = net(align(colours, BOX, **view), fixed_points(BOX, **POINTS))[0](COORDS)
    save_field(kept(net, colours, view=view), tmp_path / "x")
    torch.testing.assert_close(open_field(tmp_path / "x")(COORDS), truth)


def test_a_generated_field_holds_its_vector(tmp_path):
    net = build_model("generator", BOX, 1, 1, latent=5, widths=[6, 4], resolution=8, degree=2, hidden=6, head=4,
                      generator=torch.Generator().manual_seed(0)).eval()  # fmt: skip
    vector = torch.randn(5, generator=torch.Generator().manual_seed(3))
    save_field(kept(net, vector), tmp_path / "x")
    field = open_field(tmp_path / "x")
    truth = net.read(net.features(vector[None], fixed_points(BOX, **POINTS)), COORDS.reshape(-1, 2))[0].view(7, 3, 1)
    torch.testing.assert_close(field(COORDS), truth)
    with pytest.raises(ShapeMismatch, match=r"\(5,\) by the net generator"):
        kept(net, torch.zeros(2, 5))
    with pytest.raises(ConfigError, match="takes fields"):
        kept(unet(), torch.zeros(5))
    with pytest.raises(ConfigError, match="no field"):
        kept(net, gray())


def test_outputs_of_outputs_and_stores_of_outputs(tmp_path):
    inner = kept(unet(), gray(), activation="softmax", channel_names=("gray", "b", "c"))
    outer = kept(unet(), inner, view={"channels": ["gray"]})
    save_field(outer, tmp_path / "fields.safetensors")
    assert torch.equal(open_field(tmp_path / "fields.safetensors")(COORDS), outer(COORDS))
    (tmp_path / "in").mkdir()
    for seed in range(2):
        save_field(kept(unet(), gray(seed=seed)), tmp_path / "in" / f"{seed}.safetensors")
    pack(tmp_path / "in", tmp_path / "store")
    dataset = FieldDataset(tmp_path / "store")
    torch.testing.assert_close(
        dataset.stack([0, 1])(COORDS[0]), torch.stack([kept(unet(), gray(seed=s))(COORDS[0]) for s in (0, 1)])
    )


def test_a_class_that_the_file_names_is_imported_only_when_trusted(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    field = kept(Strange(BOX, 1, 2, generator=torch.Generator().manual_seed(0)))
    save_field(field, path)
    with pytest.raises(CannotOpen, match=f'trust="{__name__}"'):
        open_field(path)
    assert torch.equal(open_field(path, trust=__name__)(COORDS), field(COORDS))
    assert main(["info", str(path)]) == 1 and "never imports code" in capsys.readouterr().err
    assert main(["info", str(path), "--set", f"trust={__name__}"]) == 0
    with pytest.raises(CannotOpen):  # a header cannot trust itself
        open_field(rewrite(path, lambda header: header["architecture"].update(trust=__name__)))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("net", "name"), "os:system", "never imports"),
        (("net", "name"), "unett", "unett"),
        (("net", "options", "widths"), [10**6, 6], "disagree"),
        (("net", "options", "widths"), [10**9, 6], "does not describe"),
        (("net", "classes"), 10**9, "edited"),
        (("points", "n"), 10**12, "1 to 4194304 points"),
        (("points", "sampler"), "lattuce", "lattuce"),
        (("points", "seed"), -1, "seed"),
        (("activation",), "exec", "exec"),
        (("input", "format"), "nothing", "nothing"),
        (("input", "architecture", "shape"), [10**9, 10**9], "disagree"),
        (("input", "channels"), 7, "channels"),
        (("input",), {"latent": 10**12}, "takes fields"),
        (("input",), {}, "header"),
        (("net",), None, "header"),
    ],
)
def test_false_headers_are_refused(tmp_path, place, value, reason):
    def change(header):
        part = header["architecture"]
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = value

    save_field(kept(), tmp_path / "x")
    with pytest.raises(CannotOpen, match=reason):
        open_field(rewrite(tmp_path / "x", change))


def test_an_architecture_that_cannot_be_built_without_memory_is_bounded_too(tmp_path):
    """The seeds of MLP kernels are computed while a net is built, so that it cannot be tried on the meta device."""
    options = {"half_width": [0.5, 0.6, 0.7], "bins": 9}
    net = build_model("inr-net-3", BOX, 1, 3, **options, generator=torch.Generator().manual_seed(0))
    save_field(kept(net), tmp_path / "x")
    torch.testing.assert_close(open_field(tmp_path / "x")(COORDS), kept(net)(COORDS))
    huge = [100 * width for width in net.options["widths"]]
    with pytest.raises(CannotOpen, match="far larger than the file"):
        open_field(rewrite(tmp_path / "x", lambda header: header["architecture"]["net"]["options"].update(widths=huge)))


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(CannotSave, match="fit it first"):
        kept(unet(), FunctionField(lambda x: x[..., :1], BOX, 1))
    with pytest.raises(CannotSave, match="its `inner`"):
        kept(unet(), align(gray(domain=Box.unit(2)), BOX))
    with pytest.raises(ShapeMismatch, match="say how the field is seen"):
        kept(unet(), gray(domain=Box.unit(2)))
    with pytest.raises(ConfigError, match="no field"):
        kept(build_model("convnet", BOX, 1, 3, widths=[4]))
    for wrong in ({"n": 3}, {**POINTS, "n": 0}, {**POINTS, "sampler": "importance"}):
        with pytest.raises(InrBridgeError):
            kept(points=wrong)

    class Local(Strange):
        pass

    with pytest.raises(CannotSave, match="no other program could import"):
        _ = kept(Local(BOX, 1, 2)).architecture


def test_it_is_shown_and_described(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    save_field(kept(activation="softmax", channel_names=("sky", "road", "car")), path)
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["plugin"], facts["channel_names"]) == ("output", "inrbridge", ["sky", "road", "car"])
    assert Path(preview(open_field(path), tmp_path / "x.png", resolution=16)).stat().st_size > 1000
