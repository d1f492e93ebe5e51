"""The steps of a fit: gradients without autograd, and steps recorded on a GPU, descend like the plain ones."""

import pytest
import torch
from reference_fitting import SwellField

from inrbridge import Box, batched
from inrbridge.compiled.building import library
from inrbridge.fitting import descending
from inrbridge.fitting.descending import optimize
from inrbridge.stacking import evaluate_states


class _Layered(SwellField):
    def as_layers(self, states, coords):
        layers = [batched.Layer(states["frequencies"], states["phase"], "sine"), batched.Layer(states["readout"], None)]
        return coords, layers


def _descend(field, device="cpu", steps=25):
    draw = torch.Generator().manual_seed(0)
    pool, targets = torch.rand(4, 300, 2, generator=draw), torch.rand(4, 3, 300, 2, generator=draw)
    states = {name: torch.stack([value, value + 0.1, value - 0.1]).to(device) for name, value in field.state_dict().items()}
    counted = []
    fitted = optimize(
        field.to(device), states, pool.to(device), targets.to(device), [0, 3, 1, 2, 0] * (steps // 5), 0.02, counted.append
    )
    assert sum(counted) == steps
    return {name: value.cpu() for name, value in fitted.items()}


def test_rows_of_layers_are_fitted_without_autograd_and_alike(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    field = _Layered(Box.centered(2), 2, 12, 4.0, draw)
    plain = SwellField(Box.centered(2), 2, 12, 4.0, draw)
    plain.load_state_dict(field.state_dict())
    calls = []
    monkeypatch.setattr(descending, "evaluate_states", lambda *args, **kw: calls.append(1) or evaluate_states(*args, **kw))
    shorter = _descend(field)
    assert len(calls) == (0 if library("perceptron") else 25)
    longer = _descend(plain)
    assert all(torch.allclose(shorter[name], longer[name], atol=1e-5) for name in longer)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [SwellField, _Layered])
def test_a_recorded_step_descends_like_the_others(kind):
    field = kind(Box.centered(2), 2, 12, 4.0, torch.Generator().manual_seed(0))
    here, there = _descend(field), _descend(field, "cuda")
    assert all(torch.allclose(here[name], there[name], atol=1e-3) for name in here)
