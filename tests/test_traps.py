"""Mistakes that implementations of INR-Nets are known to make, one regression test each: here, or where `ELSEWHERE` says."""

import re
from pathlib import Path

import pytest
import torch
from fake_training import MemoryDataset, config
from torch import nn as torch_nn

from inrbridge import Box, evaluate, predict, stack, train
from inrbridge.discretization import Discretization
from inrbridge.errors import ConfigError, SupportTooNarrow
from inrbridge.models import build_model
from inrbridge.nn import (
    Activation,
    AvgPool,
    BasisConv,
    BatchNorm,
    Conv,
    Dropout,
    GlobalIntegral,
    MaxPool,
    MLPConv,
    ProductPair,
    Residual,
    Sampled,
    Sequential,
)
from inrbridge.sampling import get_sampler, grid, lattice, uniform
from inrbridge.stencils import build_stencil
from inrbridge.training.config import load_config
from inrbridge.training.model_folder import load_model

HERE, DOUBLE = Path(__file__).parent, {"dtype": torch.float64}

ELSEWHERE = {
    "a residual block returns x + F(x)": "nn/test_residual.py::test_residual_adds_the_input_not_the_output_twice",
    "a grid with end points converges like Monte Carlo":
        "test_property_q02_qmc_rate.py::test_negative_control_a_grid_with_end_points_converges_like_random_points",
    "dense labels are read at the points asked for": "training/test_dense.py::test_labels_are_read_at_the_points_asked_for",
    "eps and momentum are those of torch": "nn/test_norm.py::test_equals_torch_on_grids",
    "gradients flow through batch statistics": "nn/test_norm.py::test_gradients_flow_through_the_statistics",
    "grid equality: stride, groups, even and 1x1 kernels": "test_property_q08_grid_equivalence.py::test_zero_padded_convolution",
    "grid equality: every border, reflection too":
        "test_property_q08_grid_equivalence.py::test_the_general_stencil_on_grid_points_agrees_too",
    "grid equality: flatten order after adaptive pooling":
        "test_property_q08_grid_equivalence.py::test_adaptive_pooling_with_its_flatten_order",
    "a query without neighbours gives a finite value": "test_property_q10_convolution.py::test_an_empty_neighbourhood_is_finite",
    "an output field is evaluated twice": "models/test_dense.py::test_the_output_is_a_field_that_is_evaluated_again_and_again",
    "unknown configuration keys are errors": "training/test_config.py::test_errors_name_the_key_and_the_remedy",
    "seeds control the points": "test_property_q25_determinism.py::test_a_seed_decides_the_points_and_nothing_else_does",
    "seeds control the points of training": "training/test_points.py::test_fresh_points_differ_by_step_and_repeat_by_seed",
}  # fmt: skip


@pytest.mark.parametrize("trap", ELSEWHERE)
def test_it_is_tested_where_it_says(trap):
    file, _, name = ELSEWHERE[trap].partition("::")
    assert re.search(rf"^def {name}\(", (HERE / file).read_text(encoding="utf-8"), re.MULTILINE), ELSEWHERE[trap]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("make", [
    lambda: Conv(1, 1, 3, spacing=0.1, dim=3), lambda: BasisConv(1, 1, 3, spacing=0.1, dim=3),
    lambda: MLPConv(1, 1, half_width=0.15, bins=8, dim=3),
])  # fmt: skip
def test_kernels_in_space_are_bounded_along_every_axis(make, axis):
    """A change of the field farther away than half a kernel and a neighbourhood, along any one axis, is not seen."""
    torch.manual_seed(0)
    source = grid(Box.unit(3), (10, 10, 10))
    layer, at = make(), 5 * 111
    far = (source.points - source.points[at])[:, axis].abs() > 0.3
    values = torch.zeros(1, 1000, 1)
    changed = values.clone()
    changed[0, far] = 1e3
    unstructured = Discretization(source.points, source.weights, source.domain)
    for points in (source, unstructured):
        first, second = (layer(Sampled(points, v)).values[0, at] for v in (values, changed))
        torch.testing.assert_close(first, second, rtol=0, atol=1e-4)
    near = values.clone()
    near[0, at] = 1e3
    assert not torch.allclose(layer(Sampled(source, near)).values[0, at], first, atol=1e-2)


@pytest.mark.parametrize("box", [Box.unit(2), Box((-3.0, 10.0), (5.0, 12.0)), Box((100.0,), (100.5,))])
@pytest.mark.parametrize("sampler", ["uniform", "lattice", "sobol", "halton", "grid", "shrunk"])
def test_points_fill_the_whole_domain_whatever_its_bounds(box, sampler):
    x = get_sampler(sampler)(box, 400, torch.Generator().manual_seed(0), **DOUBLE).points
    unit = (x - torch.tensor(box.low)) / torch.tensor(box.size)
    assert float(unit.min(0).values.max()) < 0.06 and float(unit.max(0).values.min()) > 0.94
    assert bool(((unit.mean(0) - 0.5).abs() < 0.08).all())


def test_a_grid_is_cell_centred():
    x = grid(Box.unit(1), (4,)).points[:, 0]
    torch.testing.assert_close(x, torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_validation_measures_the_weights_of_its_step(tmp_path):
    """The figures of the last evaluation are those of the saved model, not of weights from before the last step."""
    data, held_out = MemoryDataset(), MemoryDataset(12)
    summary = train(config(tmp_path / "run", optimizer={"steps": 9, "lr": 0.05}), data, eval_dataset=held_out)
    again = evaluate(load_model(tmp_path / "run", trusted=["fake_training"]), held_out)
    assert again["loss"] == pytest.approx(summary.metrics["loss"], rel=1e-6)
    earlier = train(config(tmp_path / "short", optimizer={"steps": 8, "lr": 0.05}), data, eval_dataset=held_out)
    assert earlier.metrics["loss"] != pytest.approx(summary.metrics["loss"], rel=1e-6)  # negative control: a step is seen


def test_the_product_of_two_fields_is_their_product(generator):
    source = lattice(Box.centered(2), 64)
    a, b = (torch.randn(2, 64, 3, generator=generator) for _ in range(2))
    assert torch.equal(ProductPair()(Sampled(source, a), Sampled(source, b)).values, a * b)


def test_no_layer_changes_what_it_is_given(generator):
    source = lattice(Box.centered(2), 256)
    layers = [Conv(4, 4, spacing=0.13, generator=generator), BasisConv(4, 4, spacing=0.13, generator=generator), BatchNorm(4),
              Activation("relu"), MaxPool(0.3), AvgPool(0.3), Residual(Activation("relu")), Dropout(0.5, generator=generator),
              Sequential(Activation("relu"), Activation("tanh"))]  # fmt: skip
    values = torch.randn(2, 256, 4, generator=generator)
    kept, points, weights = values.clone(), source.points.clone(), source.weights.clone()
    for layer in layers:
        given = Sampled(source, values)
        out = layer(given)
        assert given.values is values and torch.equal(values, kept), layer
        assert torch.equal(source.points, points) and torch.equal(source.weights, weights), layer
        assert out is not given


def test_own_points_of_each_field_in_a_batch_equal_separate_runs():
    """Read at points of its own, b of them in one call, a field gives what it gives alone; so does a net, set by set."""
    data = MemoryDataset(6)
    fields = stack(data.fields)
    sets = [uniform(Box.centered(2), 64, torch.Generator().manual_seed(s)) for s in range(6)]
    together = fields(torch.stack([s.points for s in sets]))
    alone = [stack([f])(s.points)[0] for f, s in zip(data.fields, sets, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))
    net = build_model("convnet", Box.centered(2), 1, 2, widths=(4,), resolution=8).eval()
    outputs = [net(Sampled(s, v[None])) for s, v in zip(sets, together, strict=True)]
    assert not torch.allclose(outputs[0], outputs[2])
    torch.testing.assert_close(net(Sampled(sets[3], together[[3, 3]])), outputs[3].expand(2, -1))


def test_a_support_narrower_than_the_spacing_is_told(recwarn):
    """At N = 1024 on [-1, 1]^2 the spacing is 0.0625: three nodes span 0.19, and the paper's width of 0.05 holds one point."""
    source = lattice(Box.centered(2), 1024)
    field = Sampled(source, torch.ones(1, 1024, 1))
    Conv(1, 1, 3, spacing=2 / 32)(field)
    MLPConv(1, 1, half_width=0.19 / 2, bins=16)(field)
    assert not [w for w in recwarn if w.category is SupportTooNarrow]
    narrow = MLPConv(1, 1, half_width=0.05 / 2, bins=16)
    with pytest.warns(SupportTooNarrow, match=r"0\.05 is narrower than the spacing 0\.0625"):
        narrow(field)
    assert int(build_stencil(narrow.rule, source).pairs.target.bincount().max()) == 1  # pointwise, as the warning says


def test_predictions_in_evaluation_are_deterministic(tmp_path):
    data = MemoryDataset()
    summary = train(config(tmp_path / "run", model={"options": {"dropout": 0.5}}, optimizer={"steps": 2}), data)
    first, second = (predict(load_model(tmp_path / "run", trusted=["fake_training"]), data.fields[:3]) for _ in range(2))
    assert first == second
    net = summary.model.eval()
    with torch.no_grad():
        assert torch.equal(net(data.fields[:3]), net(data.fields[:3]))
    net.train()
    net.drop.generator = torch.Generator().manual_seed(0)
    assert not torch.equal(net(data.fields[:3]), net(data.fields[:3]))  # negative control: dropout is there


def test_unknown_keys_and_values_are_errors():
    with pytest.raises(ConfigError, match=r'no key "augment\.rotat".*augment\.rotate'):
        load_config({"augment": {"rotat": 1}})
    with pytest.raises(ConfigError, match=r"augment\.crop"):
        load_config({"augment": {"crop": 0}})


def test_batch_statistics_divide_by_the_root_of_variance_plus_eps(generator):
    """eps inside the root, as in torch: for a nearly constant field the two conventions differ by a factor."""
    source = grid(Box.unit(2), (8, 8), **DOUBLE)
    values = 1e-3 * torch.randn(2, 64, 3, generator=generator, **DOUBLE)
    ours, theirs = BatchNorm(3, eps=1e-4, momentum=0.3).double(), torch_nn.BatchNorm1d(3, eps=1e-4, momentum=0.3).double()
    out, expected = ours(Sampled(source, values)).values, theirs(values.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(out, expected)
    outside = (values - values.mean((0, 1))) / (values.std((0, 1), unbiased=False) + 1e-4)  # eq. (130) to the letter
    assert bool((out - outside).abs().max() > 0.5)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(
        GlobalIntegral()(ours(Sampled(source, values))).sum(0), torch.zeros(3, **DOUBLE), rtol=0, atol=1e-9
    )
