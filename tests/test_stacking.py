import pickle

import pytest
import torch
from reference_fields import BatchedSineField, SineField, loop

from inrbridge import FunctionField, GridField, stack
from inrbridge.domains import Box
from inrbridge.errors import CannotAlign, NotFinite, OutsideDomain, ShapeMismatch
from inrbridge.stacking import FieldStack, Group, Loose, evaluate_states
from inrbridge.transforms import MapChannels, PermuteAxes, SelectChannels, rescale

BOX = Box.centered(2)


def grid(seed, shape=(6, 5), channels=1):
    samples = torch.rand(*shape, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return GridField(samples, BOX)


def wave(x):
    return torch.sin(x[..., :1] * 3)


def mixed():
    """Eight fields of five kinds, out of order."""
    return [
        SineField(seed=0), grid(0), FunctionField(wave, BOX, 1), SineField(width=5, seed=1),
        BatchedSineField(seed=2), SineField(seed=3), grid(1), BatchedSineField(seed=4),
    ]  # fmt: skip


def points(*shape, generator):
    return torch.rand(*shape, 2, dtype=torch.float64, generator=generator) * 2 - 1


@pytest.mark.parametrize("shared", [True, False])
def test_a_mixed_stack_equals_the_loop_in_order(shared, generator):
    fields = mixed()
    x = points(17, generator=generator) if shared else points(len(fields), 17, generator=generator)
    made = stack(fields)
    assert len(made) == 8 and len(made.groups) == 5
    torch.testing.assert_close(made(x), loop(fields, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [SineField, BatchedSineField])
@pytest.mark.parametrize("n", [1, 30, 5000])  # 5000 points: above the work at which fields are asked one by one
def test_each_way_of_evaluating_equals_the_loop(kind, n, generator):
    fields = [kind(width=32, seed=i) for i in range(4)]
    for x in (points(n, generator=generator), points(4, n, generator=generator)):
        torch.testing.assert_close(stack(fields)(x), loop(fields, x), rtol=1e-10, atol=1e-12)


def test_chunks_of_points_change_nothing_and_bound_the_points_at_once(generator):
    seen = []

    class Watched(BatchedSineField):
        def evaluate_stack(self, states, coords):
            seen.append(coords.shape[-2])
            return super().evaluate_stack(states, coords)

    fields = [Watched(seed=i) for i in range(3)]
    for x in (points(1000, generator=generator), points(3, 1000, generator=generator)):
        seen.clear()
        values = stack(fields, memory=100_000)(x)
        assert max(seen) <= 100_000 // (4 * 3 * 8 * 8) and len(seen) > 5 and sum(seen) == 1000
        torch.testing.assert_close(values, loop(fields, x), rtol=1e-10, atol=1e-12)


def test_frozen_by_default_with_gradients_in_coords(generator):
    fields = mixed()
    x = points(5, generator=generator).requires_grad_()
    values = stack(fields)(x)
    (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(loop(fields, x).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-10)
    values.sum().backward()
    assert all(p.grad is None for f in fields if isinstance(f, torch.nn.Module) for p in f.parameters())
    assert not stack(fields)(x.detach()).requires_grad


def test_a_module_that_cannot_be_stacked_is_frozen_too(generator):
    class Odd(torch.nn.Module):
        domain, channels = BOX, 1

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, x):
            return x[..., :1] * self.scale

    odd = Odd()
    x = points(5, generator=generator).requires_grad_()
    values = stack([odd, rescale(odd, BOX), PermuteAxes(odd, (1, 0))])(x)
    values.sum().backward()
    assert odd.scale.grad is None
    torch.testing.assert_close(values[2], 2 * x[:, 1:])
    stack([odd], trainable=True)(x).sum().backward()
    assert odd.scale.grad is not None


@pytest.mark.parametrize("kind", [SineField, BatchedSineField])
def test_trainable_gradients_reach_each_field(kind, generator):
    fields, twins = [kind(seed=i) for i in range(3)], [kind(seed=i) for i in range(3)]
    x = points(11, generator=generator)
    stack(fields, trainable=True)(x).square().sum().backward()
    loop(twins, x).square().sum().backward()
    for field, twin in zip(fields, twins, strict=True):
        for a, b in zip(field.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11)


def test_from_states_trains_the_states_alone(generator):
    fields = [SineField(seed=i) for i in range(3)]
    states = {name: torch.stack([f.state_dict()[name] for f in fields]).requires_grad_() for name in fields[0].state_dict()}
    template = SineField(seed=9)
    made = FieldStack.from_states(template, states, trainable=True)
    x = points(7, generator=generator)
    torch.testing.assert_close(made(x), loop(fields, x))
    made(x).sum().backward()
    assert all(state.grad is not None for state in states.values())
    assert all(p.grad is None for p in template.parameters())
    with pytest.raises(ShapeMismatch, match="stacked on axis 0"):
        FieldStack.from_states(template, {**states, "layers.0.bias": states["layers.0.bias"][:2]})
    with pytest.raises(ShapeMismatch, match="template"):
        FieldStack.from_states(template, {})


def test_equal_transforms_do_not_break_a_group(generator):
    unit = Box.unit(2)
    fields = [MapChannels(rescale(PermuteAxes(f, (1, 0)), unit), [2.0], [1.0]) for f in mixed()]
    made = stack(fields)
    assert sum(isinstance(group, Group) for group in made.groups) == 4
    for x in (torch.rand(9, 2, dtype=torch.float64), torch.rand(8, 9, 2, dtype=torch.float64)):
        torch.testing.assert_close(made(x), loop(fields, x), rtol=1e-10, atol=1e-12)
    different = [rescale(SineField(), unit), rescale(SineField(domain=Box.centered(2, 2.0)), unit)]
    assert len(stack(different).groups) == 2
    torch.testing.assert_close(stack(different)(x[0]), loop(different, x[0]))


def test_a_module_that_branches_on_values_is_asked_one_by_one(generator):
    class Branching(SineField):
        def forward(self, coords):
            return super().forward(coords) if float(self.layers[0].bias.detach().sum()) > 0 else -super().forward(coords)

    fields = [Branching(seed=i) for i in range(4)]
    x = points(6, generator=generator)
    torch.testing.assert_close(stack(fields)(x), loop(fields, x))


def test_fields_that_differ_are_not_mixed_up():
    fields = [SineField(omega=3.0), SineField(omega=4.0), SineField(channels=1, seed=1), SineField(dtype=torch.float32)]
    assert [group.positions for group in stack(fields).groups] == [(0,), (1,), (2,), (3,)]


def test_items_are_fields(generator):
    fields = mixed()
    fields[0] = rescale(SineField(seed=0, domain=Box.unit(2)), BOX)
    made = stack(fields)
    x = points(4, generator=generator)
    for i, field in enumerate(made):
        torch.testing.assert_close(field(x), fields[i](x))
    torch.testing.assert_close(made[-1](x), fields[-1](x))
    with pytest.raises(IndexError):
        made[8]


def test_concat_merges_equal_groups(generator):
    fields = mixed()
    made = FieldStack.concat([stack(fields[:3]), stack(fields[3:6]), stack(fields[6:])])
    assert len(made.groups) == 5 and sum(isinstance(g, Loose) for g in made.groups) == 1
    for x in (points(6, generator=generator), points(8, 6, generator=generator)):
        torch.testing.assert_close(made(x), loop(fields, x))


def test_moved_and_pickled(generator):
    fields = [f for f in mixed() if not isinstance(f, FunctionField)]
    x = points(6, generator=generator)
    single = stack(fields).to(dtype=torch.float32)(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), loop(fields, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pickle.loads(pickle.dumps(stack(fields)))(x), loop(fields, x))


def test_damaged_input_is_refused(generator):
    made = stack(mixed())
    x = points(6, generator=generator)
    with pytest.raises(ShapeMismatch, match="shared by all"):
        made(x[None])
    with pytest.raises(ShapeMismatch, match="coordinates"):
        made(x[:, :1])
    with pytest.raises(OutsideDomain, match="outside"):
        made(x + 3)
    with pytest.raises(NotFinite, match="coordinates"):
        made(torch.full_like(x, torch.nan))
    assert made(x + 3, check=False).shape == (8, 6, 1)
    with pytest.raises(ShapeMismatch, match="no fields"):
        stack([])
    with pytest.raises(CannotAlign, match="align"):
        stack([SineField(), SineField(domain=Box.unit(2))])
    with pytest.raises(CannotAlign, match="2 channels"):
        stack([SineField(channels=2), SineField()])
    with pytest.raises(ShapeMismatch, match="positions"):
        FieldStack([Loose((FunctionField(wave, BOX, 1),), (1,))])
    broken = SineField()
    torch.nn.init.constant_(broken.layers[0].weight, torch.nan)
    with pytest.raises(NotFinite, match=r"\[1\]"):
        stack([SineField(), broken])(x)


def test_a_wrong_answer_of_a_field_is_told(generator):
    class Flat(SineField):
        def evaluate_stack(self, states, coords):
            return super().forward(coords)

    with pytest.raises(ShapeMismatch, match="expected \\(2, 6, 1\\)"):
        stack([Flat(), Flat()])(points(6, generator=generator))


def test_selected_channels_of_a_group(generator):
    fields = [SelectChannels(SineField(channels=3, seed=i), ["value2", "value0"]) for i in range(2)]
    x = points(6, generator=generator)
    made = stack(fields)
    assert len(made.groups) == 1 and made.channel_names == ("value2", "value0")
    torch.testing.assert_close(made(x), loop(fields, x))


def test_no_points(generator):
    assert stack(mixed())(points(0, generator=generator)).shape == (8, 0, 1)
    states = dict(SineField().state_dict())
    stacked = {name: value[None] for name, value in states.items()}
    assert evaluate_states(SineField(), stacked, points(0, generator=generator)).shape == (1, 0, 1)


def test_tables_to_be_read_stand_side_by_side_and_others_one_after_the_other(generator):
    fields = [grid(seed, channels=3) for seed in range(4)]
    x = points(9, generator=generator)
    made = stack(fields)
    samples = made.groups[0].states["samples"]
    assert samples.shape == (4, 6, 5, 3) and samples.stride() == (3, 60, 12, 1)
    joined = FieldStack.concat([stack(fields[:2]), stack(fields[2:])])
    for other in (joined, made.to(dtype=torch.float64)):
        assert other.groups[0].states["samples"].stride() == samples.stride()
    learning = stack([field.requires_grad_() for field in fields], trainable=True)
    apart = FieldStack.concat([stack(fields[:2], trainable=True), stack(fields[2:], trainable=True)])
    for other in (learning, apart):
        assert other.groups[0].states["samples"].is_contiguous()
    for other in (made, joined, learning, apart):
        torch.testing.assert_close(other(x), loop(fields, x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other[2](x), fields[2](x), rtol=1e-12, atol=1e-12)
    learning(x).square().sum().backward()
    loop(fields, x).square().sum().neg().backward()
    assert all(field.samples.grad.abs().max() < 1e-10 for field in fields)
