"""Predictions with an estimate of their error: honest, by field, and no point twice."""

import pytest
import torch
from fake_training import MemoryDataset, SmallNet, config, striped

from inrbridge import Box, FunctionField, predict, stack, train
from inrbridge.errors import ConfigError, ShapeMismatch
from inrbridge.models import build_model
from inrbridge.nn import Sampled
from inrbridge.sampling import lattice
from inrbridge.training import load_model, settled

SQUARE = Box.centered(2)


def mean(sampled):
    return torch.einsum("n,bnc->bc", sampled.weights, sampled.values)


def counted(function):
    """A field that remembers at how many points it was asked."""
    asked = []
    field = FunctionField(lambda x: asked.append(x.shape[-2]) or function(x), SQUARE, 1)
    return field, asked


def smooth(x):
    return x[..., :1] ** 2


def fine(x):  # waves shorter than the distance of some hundred points
    return 1 + torch.sin(60 * x[..., :1] * x[..., 1:])


@pytest.mark.parametrize("sampler", ["lattice", "sobol", "halton", "uniform"])
def test_the_error_is_about_what_is_said(sampler):
    fields = [FunctionField(f, SQUARE, 1) for f in (smooth, fine)]
    found = settled(mean, fields, tol=3e-3, sampler=sampler, n=256, max_n=2**15)
    x = lattice(SQUARE, 2**17)
    truth = torch.cat([mean(Sampled(x, f(x.points)[None])) for f in (smooth, fine)])
    wrong = (found.outputs - truth).abs()[:, 0]
    assert bool((wrong <= 3 * found.moved.clamp(min=1e-4)).all())
    assert bool((found.moved[found.settled] <= 3e-3).all()) and bool((found.moved[~found.settled] > 3e-3).all())


def test_each_field_has_its_own_number_of_points_and_fine_structure_more():
    (easy, few), (hard, many) = counted(smooth), counted(fine)
    found = settled(mean, [easy, hard], tol=2e-3, n=256, max_n=2**14)
    assert bool(found.settled.all()) and found.points.tolist()[0] < found.points.tolist()[1]
    assert sum(few) == 2 * int(found.points[0]) and sum(many) == 2 * int(found.points[1])  # two sets, no point twice
    alone = settled(mean, hard, tol=2e-3, n=256, max_n=2**14)
    torch.testing.assert_close(alone.outputs[0], found.outputs[1])
    assert alone.points[0] == found.points[1]


def test_what_does_not_settle_is_said():
    noise = FunctionField(lambda x: torch.sin(1e5 * x[..., :1] * x[..., 1:] + 1e4 * x[..., :1]), SQUARE, 1)
    found = settled(mean, noise, tol=1e-5, n=64, max_n=512)
    assert not bool(found.settled) and int(found.points) == 512 and float(found.moved) > 1e-5
    assert found.facts() == [{"points": 512, "moved": float(found.moved), "settled": False}]


def test_one_look_may_do_where_half_of_the_points_say_the_same():
    field, asked = counted(lambda x: 0 * x[..., :1] + 3)
    found = settled(mean, field, tol=1e-5, n=128)
    assert int(found.points) == 128 and asked == [128, 128] and float(found.outputs) == pytest.approx(3)


def test_agreement_of_sets_alone_is_not_enough():
    """Negative control: a net that sees only the number of points agrees on every set, and has not settled."""
    found = settled(lambda s: 0 * s.values.mean(1) + 1000 / len(s.discretization), striped(True, 0.0), tol=1e-2, n=64)
    assert not bool(found.settled) and float(found.moved) == pytest.approx(1000 / 512 - 1000 / 1024, rel=1e-4)


def test_a_net_with_weights_settles_and_is_left_as_it_was(generator):
    net = build_model("convnet", domain=SQUARE, in_channels=1, classes=3, widths=[4, 4], resolution=12, generator=generator)
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fields = stack([striped(True, 0.2), striped(False, 0.1)])
    found = settled(net, fields, tol=0.05, n=256, max_n=4096)
    assert net.training and found.outputs.shape == (2, 3) and not found.outputs.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    net.eval()
    again = settled(net, fields, tol=0.05, n=256, max_n=4096)
    assert torch.equal(found.outputs, again.outputs) and torch.equal(found.points, again.points)
    x = lattice(SQUARE, 2**14, torch.Generator().manual_seed(9))
    with torch.no_grad():
        limit = net(fields, x)
    done = found.settled
    assert bool(done.any()) and bool(((found.outputs - limit).abs().amax(1)[done] < 3 * 0.05).all())


def test_predictions_of_a_trained_net_tell_how_far_they_moved(tmp_path):
    train(config(tmp_path, optimizer={"steps": 30}), MemoryDataset())
    model = load_model(tmp_path, trusted=["fake_training"])
    coarse = striped(True, 0.1)
    ripples = FunctionField(lambda x: torch.sin(3 * x[..., 1:] + 0.1) + torch.sin(90 * x[..., :1]) ** 3, SQUARE, 1, ("gray",))
    answers = predict(model, [coarse, ripples], tol=0.02, n=64, max_n=4096)
    plain = predict(model, [coarse, ripples], n=4096)
    for answer, other in zip(answers, plain, strict=True):
        assert {"path", "label", "probabilities", "points", "moved", "settled"} == set(answer)
        assert answer["settled"] == (answer["moved"] <= 0.02) and 64 <= answer["points"] <= 4096
        assert answer["label"] == other["label"]
        assert abs(answer["probabilities"]["down"] - other["probabilities"]["down"]) < 0.02
    assert answers[0]["points"] <= answers[1]["points"]
    assert set(plain[0]) == {"path", "label", "probabilities"}
    with pytest.raises(ConfigError, match="max_n without tol"):
        predict(model, coarse, max_n=100)


def test_bad_arguments_are_one_sentence(generator):
    field = FunctionField(smooth, SQUARE, 1)
    for tol in (0, -1.0, float("nan"), "0.1"):
        with pytest.raises(ConfigError, match="expected a number above 0"):
            settled(mean, field, tol=tol)
    with pytest.raises(ConfigError, match="same for every seed"):
        settled(mean, field, tol=0.1, sampler="grid")
    with pytest.raises(ConfigError, match="at least 2"):
        settled(mean, field, tol=0.1, sets=1)
    with pytest.raises(ConfigError, match="max_n=10"):
        settled(mean, field, tol=0.1, n=100, max_n=10)
    with pytest.raises(ConfigError, match="no fields"):
        settled(mean, [], tol=0.1)
    with pytest.raises(ShapeMismatch, match="expected a tensor"):
        settled(lambda sampled: sampled, field, tol=0.1)
    net = SmallNet(SQUARE, 1, 2, generator=generator)
    with pytest.raises(ConfigError, match="without a card"):
        predict(net, field, tol=0.1)
