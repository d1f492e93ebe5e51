"""Bad input from Python: coordinates, points and fields that do not fit, and kernels that are too narrow for their points."""

import warnings

import pytest
import torch
from fake_training import MemoryDataset, config, striped_grid

from inrbridge import Box, FunctionField, Region, Sphere, nn, pack, query, sampling, save_field, stack, train
from inrbridge.data import FieldDataset
from inrbridge.discretization import Discretization
from inrbridge.errors import EmptyDiscretization, InrBridgeError, NotFinite, OutsideDomain, ShapeMismatch, SupportTooNarrow
from inrbridge.models import build_model, rectangle_net
from inrbridge.nn import Sampled
from inrbridge.transforms import GradientField, WarpField
from inrbridge.transforms.augmentation import cropped


def test_a_narrow_kernel_is_told_where_the_caller_is(recwarn):
    field = striped_grid(True, 0.0)
    net = build_model("convnet", Box.centered(2), 1, 2, resolution=12, widths=[4, 4])
    conv = nn.Conv(1, 1, 3, spacing=0.05, dim=2)
    for call in (lambda x: net(field, x), lambda x: conv(nn.Sampled(x, stack([field])(x.points)))):
        recwarn.clear()
        for seed in range(3):
            call(sampling.uniform(Box.centered(2), 9, torch.Generator().manual_seed(seed)))
        told = [warning for warning in recwarn if warning.category is SupportTooNarrow]
        assert told and {warning.filename for warning in told} == {__file__}


def test_reading_grids_does_not_make_python_forget_its_warnings():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            striped_grid(True, 0.0)(torch.zeros(2, 2))
            warnings.warn("once", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["once"]


POINTS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("coords", "error", "got"),
    [
        (torch.zeros(3, 3), ShapeMismatch, r"shape \(3, 3\), expected \(..., 2\)"),
        (torch.zeros(3, 1), ShapeMismatch, r"shape \(3, 1\), expected \(..., 2\)"),
        (torch.tensor(0.0), ShapeMismatch, "Got coordinates of shape"),
        ([[0.0, 0.0]], ShapeMismatch, "Got a list as coordinates, expected a floating-point tensor"),
        (POINTS.long(), ShapeMismatch, "Got a tensor of torch.int64 as coordinates"),
        (POINTS + 3, OutsideDomain, r"3 of 3 points outside Box.*clip or rescale"),
        (POINTS + torch.nan, NotFinite, "3 points with NaN.*drop or repair"),
        (POINTS + torch.inf, NotFinite, "3 points with NaN.*drop or repair"),
    ],
)
def test_bad_coordinates(coords, error, got):
    field = striped_grid(True, 0.0)
    for ask in (lambda: query(field, coords), lambda: stack([field, field])(coords)):
        with pytest.raises(error, match=got):
            ask()
    if error is ShapeMismatch:
        with pytest.raises(error, match=got):
            field(coords)  # a bare call checks the shape alone


@pytest.mark.parametrize(
    "make",
    [
        lambda: sampling.lattice(Box.centered(2), 0),
        lambda: sampling.points(Box.centered(2), torch.zeros(0, 2)),
        lambda: Discretization(torch.zeros(0, 2), torch.zeros(0), Box.centered(2)),
        lambda: sampling.sobol(Box.centered(2), 8).prefix(0),
    ],
)
def test_zero_points(make):
    with pytest.raises(EmptyDiscretization, match=r"Got .*0 points.*, expected"):
        make()


def test_what_is_no_field_or_does_not_fit_a_net(tmp_path):
    save_field(striped_grid(True, 0.0), tmp_path / "a.safetensors")
    pack(tmp_path / "a.safetensors", tmp_path / "store", splits="train")
    field = striped_grid(True, 0.0)
    net = build_model("convnet", Box.centered(2), 1, 2, resolution=12, widths=[4, 4])
    line = FunctionField(lambda x: x, Box.centered(1), 1)
    for call, text in (
        (lambda: net(torch.zeros(2, 2)), "Got a Tensor to stack, expected fields"),
        (lambda: net([]), "Got no fields"),
        (lambda: net(line), "expected fields on Box"),
        (lambda: net([field, line]), "align"),
        (lambda: net(field, sampling.lattice(Box.centered(3), 64)), r"shape \(64, 3\), expected \(..., 2\)"),
        (lambda: FieldDataset(tmp_path / "store", split="trian"), "the splits of .* are: train; expected one of them"),
    ):
        with pytest.raises(InrBridgeError, match=text):
            call()


def test_labels_outside_the_classes(tmp_path):
    data = MemoryDataset(class_names=["across"])  # labels 0 and 1
    with pytest.raises(InrBridgeError, match=r"Got the label 1 for 1 classes, expected 0 to 0; name every class"):
        train(config(tmp_path / "run"), data)


SQUARE = Sampled(sampling.sobol(Box.unit(2), 64), torch.zeros(2, 64, 3))
LINE = Sampled(sampling.sobol(Box.unit(1), 64), torch.zeros(2, 64, 1))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: nn.ConcatPair()(SQUARE, LINE), "Got a field on Box.* to join with one on Box.*, expected one domain"),
        (lambda: nn.BilinearPair(3, 2, 4)(SQUARE, SQUARE), "Got 3 channels in the second field of BilinearPair.*, expected 2"),
        (lambda: nn.Divergence()(SQUARE), r"Got 3 channels in Divergence\(\), expected 2"),
        (lambda: nn.Warp()(SQUARE, SQUARE), "Got a displacement of 3 channels .*, expected 2 channels on the same domain"),
        (lambda: nn.Gradient()(Sampled(sampling.sobol(Box.unit(3), 4), torch.zeros(1, 4, 1))), "Got 4 points .*use more points"),
        (lambda: GradientField(FunctionField(lambda x: x, Sphere(), 3)), "expected a flat domain"),
        (lambda: WarpField(FunctionField(lambda x: x, Box.unit(2), 2), (0.1,)), "Got a displacement of 1 numbers .*, expected 2"),
        (lambda: cropped(FunctionField(lambda x: x, Box.unit(2), 2), (0.5, 0.5), (0.5, 1.0)), "many numbers with low < high"),
        (lambda: Region(Box.unit(2), torch.zeros(4, 4, dtype=torch.bool)), "Got an empty Region"),
        (lambda: Region(Box.unit(2), lambda x: x[..., 0] > 2), "Got an empty Region"),
        (lambda: rectangle_net(lambda f: f[..., 0], [1.0], [0.0], 0.1), "expected eps > 0 and low < high"),
    ],
)
def test_layers_and_transforms_say_what_does_not_fit(call, text):
    with pytest.raises(InrBridgeError, match=text):
        call()
