"""Fitting: stacked equals alone, the same seed gives the same bits, an interrupted fit goes on, and mistakes are told."""

import json
import math
import time

import numpy as np
import pytest
import torch
from fake_formats import RippleFormat
from reference_fitting import SwellFormat, fit_alone

import inrbridge
from inrbridge import Box, FieldDataset, Format, FunctionField, fit, fitting, plugins, sampling
from inrbridge.errors import ConfigError, NotFinite, PluginError, ShapeMismatch, StoreError, UnknownFormat
from inrbridge.fitting import deal
from inrbridge.fitting.descending import optimize
from inrbridge.fitting.optimizing import PointPlan, fields_at_once, sample_targets
from inrbridge.fitting.planning import plan_jobs, seeded
from inrbridge.fitting.threads import run_side_by_side
from inrbridge.signals import Signal, read_signal, read_signals

rng = np.random.default_rng(0)
IMAGES = [np.cumsum(rng.normal(size=(6, 6)), axis=0).astype(np.float32) for _ in range(7)]
NAMES = [f"image{i}" for i in range(7)]


class FixedFormat(Format):
    """Builds fields that cannot be trained."""

    api, name = 1, "fixed"

    def recognizes(self, probe):
        return False

    def open(self, path):
        raise OSError(path)

    def build(self, domain, channels, *, generator=None):
        return FunctionField(torch.sin, domain, channels)


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host without strangers' plugins, with the formats of the tests."""
    monkeypatch.setenv("INRBRIDGE_PLUGINS", "")
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    registry = plugins.rescan()
    for format in (SwellFormat(), RippleFormat(), FixedFormat()):
        registry.register(format)
    yield
    monkeypatch.undo()
    plugins.rescan()


def states(fields):
    return [{name: value.detach().clone() for name, value in field.state_dict().items()} for field in fields]


def largest_gap(a, b):
    return max(float((x[name] - y[name]).abs().max()) for x, y in zip(states(a), states(b), strict=True) for name in x)


@pytest.mark.parametrize("format", ["swell", "ripple"])  # with a batched evaluation of its own, and without
def test_stacked_equals_one_at_a_time(format):
    signals = read_signals(IMAGES[:3], names=NAMES[:3])
    together = fit(signals, format, steps=5, lr=0.02, points=32)
    for job, field in zip(_jobs(signals, format, steps=5, lr=0.02, points=32), together, strict=True):
        pool = job.plan.pool(field.domain, seeded(0, "points"))
        order = job.plan.order(5, seeded(0, "order"))
        alone = plugins.get_format(format).build(field.domain, 1, generator=job.generator())
        fit_alone(alone, pool, sample_targets([job.signal], pool)[:, 0], order, 0.02)
        assert largest_gap([alone], [field]) < 2e-6


def _jobs(signals, format, *, steps, lr, points):
    return plan_jobs(signals, format, {}, {}, None, steps=steps, lr=lr, seed=0, points=points, oversample=2)


def test_a_field_does_not_depend_on_its_company_or_place():
    whole = fit(IMAGES, "swell", names=NAMES, steps=20)
    some = fit([IMAGES[4], IMAGES[1]], "swell", names=[NAMES[4], NAMES[1]], steps=20)
    assert largest_gap(some, [whole[4], whole[1]]) < 1e-5
    assert largest_gap(fit(IMAGES, "swell", names=NAMES, steps=20, batch=3), whole) < 1e-5


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    first, again, other = (fit(IMAGES, "swell", names=NAMES, steps=20, seed=seed) for seed in (3, 3, 4))
    assert largest_gap(first, again) == 0
    assert largest_gap(first, other) > 1e-3


def test_threads_do_not_share_a_module_that_knows_no_stacks(monkeypatch):
    """Such a module holds borrowed parameters while it is evaluated: two threads in one would mix them up."""

    class Slow(type(RippleFormat().build(Box.unit(2), 1))):
        def forward(self, coords):
            time.sleep(0.002)  # the other thread comes in between
            return super().forward(coords)

    monkeypatch.setattr("fake_formats.RippleField", Slow)
    monkeypatch.setattr(fitting, "fields_at_once", lambda *args: 1)
    before = torch.get_num_threads()
    try:
        fitted = []
        for threads in (1, 4):
            torch.set_num_threads(threads)
            fitted.append(fit(IMAGES[:4], format="ripple", steps=8))
    finally:
        torch.set_num_threads(before)
    assert largest_gap(*fitted) == 0


def test_the_number_of_threads_does_not_change_a_bit_and_the_global_seed_nothing():
    many = [np.full((4, 4), float(i), np.float32) for i in range(40)]
    before, random_state = torch.get_num_threads(), torch.get_rng_state()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(fit(many, "swell", steps=3, points=1024))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert largest_gap(*found) == 0
    assert torch.equal(random_state, torch.get_rng_state())


def test_buffers_are_carried_but_not_trained():
    (field,) = fit(IMAGES[:1], "swell", names=["a"], steps=10)
    fresh = SwellFormat().build(field.domain, 1, generator=seeded(0, "a"))
    assert torch.equal(field.frequencies, fresh.frequencies)
    assert not torch.equal(field.phase, fresh.phase)


def test_psnr_is_measured_at_the_samples_of_the_signal():
    signal = read_signal(IMAGES[0])
    (field,) = fit([signal], "swell", steps=30)
    truth = torch.from_numpy(IMAGES[0])
    error = (field(sampling.grid(signal.field.domain, (6, 6)).points).detach().reshape(6, 6) - truth).square().mean()
    peak = float(truth.max() - truth.min())
    assert field.psnr == pytest.approx(10 * math.log10(peak**2 / float(error)), abs=1e-3)


def test_a_network_does_not_oscillate_between_the_points():
    """Fixed points let a net of high frequencies pass through them and run wild between; shifted sets do not."""
    signal = read_signal(np.sin(np.arange(12) / 3).astype(np.float32))
    dense = sampling.grid(signal.field.domain, (500,)).points
    job = _jobs([signal], "swell", steps=300, lr=0.05, points=16)[0]
    fresh = SwellFormat().build(signal.field.domain, 1, generator=job.generator(), pitch=25.0, width=48)
    state = {name: value[None] for name, value in fresh.state_dict().items()}
    errors = []
    for blocks in (1, 16):
        plan = PointPlan(16, blocks)
        pool, order = plan.pool(signal.field.domain, seeded(0, "points")), plan.order(300, seeded(0, "order"))
        fitted = optimize(fresh, state, pool, sample_targets([signal], pool), order, 0.05)
        values = fresh.evaluate_stack(fitted, dense)[0]
        errors.append(float((values - signal.field(dense)).square().mean().sqrt()))
    assert errors[1] < 0.1 * errors[0]


def test_grids_are_read_off_and_need_no_steps():
    fields = fit(IMAGES[:2], "grid")
    points = sampling.grid(Box.centered(2), (6, 6)).points
    assert all(field.psnr > 100 and field.shape == (6, 6) for field in fields)
    assert torch.allclose(fields[1](points).reshape(6, 6), torch.from_numpy(IMAGES[1]), atol=1e-5)
    assert fit(IMAGES[:1], "grid", shape=[3, 4], interpolation="linear")[0].shape == (3, 4)


def test_channel_names_follow_the_signal():
    colour = read_signal(np.zeros((4, 4, 3), np.uint8)).field
    colour.channel_names = ("red", "green", "blue")
    for format in ("swell", "grid"):
        assert fit([Signal("c", colour)], format, steps=1)[0].channel_names == ("red", "green", "blue")


def test_callables_on_any_domain():
    disc = inrbridge.Ball((0.0, 0.0))
    (field,) = fit(lambda x: torch.cos(2 * x[..., :1]), "swell", domain=disc, steps=200)
    assert field.domain == disc and field.psnr > 30


def test_signals_of_different_lengths_are_fitted_side_by_side():
    sounds = [np.sin(np.arange(n) / 9).astype(np.float32) for n in (50, 60, 41)]
    fields = fit(sounds, "swell", steps=5, pitch=10.0)
    assert [f.domain.dim for f in fields] == [1, 1, 1]
    assert len({job.group for job in _jobs(read_signals(sounds), "swell", steps=5, lr=0.1, points=None)}) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_fits_the_same_fields():
    here, there = (fit(IMAGES, "swell", names=NAMES, steps=20, device=device) for device in ("cpu", "cuda"))
    assert all(value.device.type == "cpu" for state in states(there) for value in state.values())
    assert largest_gap(here, there) < 1e-3


# a store


def test_a_mixed_store(tmp_path):
    formats = ["swell", "grid", "ripple", "grid", "swell", "swell", "ripple"]
    store = fit(
        IMAGES, formats, tmp_path / "s", names=NAMES, labels=list("abcabca"), splits=["train"] * 4 + ["test"] * 3, steps=4,
        width=10, waves=3, format_options={"ripple": {"steps": 2, "lr": 0.5}}, batch=2,
    )  # fmt: skip
    assert sorted(store.names) == NAMES and store.format_names == ["grid", "ripple", "swell"]
    dataset = FieldDataset(store, split="test")
    assert len(dataset) == 3 and sorted(dataset.formats) == ["ripple", "swell", "swell"]
    by_name = {item.name: item for item in store.items}
    assert [by_name[name].label for name in NAMES] == list("abcabca")
    alone = fit(IMAGES[:1], "swell", names=NAMES[:1], steps=4, width=10)[0]
    held = store.field(store.names.index("image0"))
    assert largest_gap([alone], [held]) < 1e-6 and by_name["image0"].psnr == pytest.approx(alone.psnr, abs=1e-3)


def test_an_interrupted_fit_goes_on_and_equals_an_uninterrupted_one(tmp_path):
    kind = dict(names=NAMES, steps=40, batch=3)

    def interrupt(done, total, figures):
        if done > 40 * 4:  # in the second batch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(IMAGES, "swell", tmp_path / "s", progress=interrupt, **kind)
    from inrbridge.data import Store

    assert Store(tmp_path / "s").names == NAMES[:3]  # nothing that was finished is lost
    done = []
    resumed = fit(IMAGES, "swell", tmp_path / "s", progress=lambda *call: done.append(call[0]), **kind)
    assert done[-1] == 40 * 4  # four fields were left
    straight = fit(IMAGES, "swell", tmp_path / "t", **kind)
    assert resumed.names == straight.names == NAMES
    assert largest_gap([resumed.field(i) for i in range(7)], [straight.field(i) for i in range(7)]) == 0
    shards = sorted((tmp_path / "s").glob("*.safetensors"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    again = fit(IMAGES, "swell", tmp_path / "s", **kind)
    assert len(again) == 7 and [shard.stat().st_mtime_ns for shard in shards] == before


def test_a_store_takes_new_signals_and_refuses_changed_ones(tmp_path):
    out = tmp_path / "s"
    fit(IMAGES[:2], "swell", out, names=NAMES[:2], steps=3)
    assert fit(IMAGES[:3], "swell", out, names=NAMES[:3], steps=3).names == NAMES[:3]
    with pytest.raises(StoreError, match=r'"image0" fitted under other settings \(steps 3 -> 4\)'):
        fit(IMAGES[:1], "swell", out, names=NAMES[:1], steps=4)
    with pytest.raises(StoreError, match=r"options \{\} -> \{'width': 9\}"):
        fit(IMAGES[:1], "swell", out, names=NAMES[:1], steps=3, width=9)
    with pytest.raises(StoreError, match="fitted to other samples"):
        fit(IMAGES[1:2], "swell", out, names=NAMES[:1], steps=3)
    with pytest.raises(StoreError, match="holds 3 fields already"):
        fit(IMAGES[3:4], "swell", out, names=["new"], steps=3, resume=False)
    fit(IMAGES[3:4], "grid", out, names=["grid"], steps=3)
    assert len(fit(IMAGES[3:4], "grid", out, names=["grid"], steps=9)) == 4  # steps mean nothing to a grid


def test_a_damaged_record_and_a_foreign_store_are_refused(tmp_path):
    out = tmp_path / "s"
    fit(IMAGES[:1], "swell", out, names=NAMES[:1], steps=1)
    record = out / "fit.json"
    text = record.read_text()
    for damage in ("{", "[]", json.dumps({"settings": [], "items": {"image0": [5, None]}}), '{"settings": 3, "items": 4}'):
        record.write_text(damage)
        with pytest.raises(StoreError, match=r"fit\.json is damaged"):
            fit(IMAGES[:1], "swell", out, names=NAMES[:1], steps=1)
    record.unlink()
    with pytest.raises(StoreError, match="was not fitted here"):
        fit(IMAGES[:1], "swell", out, names=NAMES[:1], steps=1)
    record.write_text(text)
    assert len(fit(IMAGES[:1], "swell", out, names=NAMES[:1], steps=1)) == 1


# mistakes


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"format": "swel"}, UnknownFormat, 'no format "swel".*Did you mean "swell"'),
        ({"format": ["swell"] * 2}, ShapeMismatch, "Got 2 formats for 3 signals"),
        ({"widht": 3}, ConfigError, 'option "widht".*Did you mean "width"'),
        ({"format_options": {"swell": {"widht": 3}}}, ConfigError, 'no option "widht".*Did you mean "width"'),
        ({"format_options": {"grid": {}}}, ConfigError, 'options for the format "grid"'),
        ({"steps": -1}, ConfigError, "steps=-1, expected a whole number of at least 0"),
        ({"steps": 2.5}, ConfigError, "steps=2.5"),
        ({"lr": 0.0}, ConfigError, "lr=0.0, expected a number above 0"),
        ({"points": 0}, ConfigError, "points=0"),
        ({"oversample": -2}, ConfigError, "oversample=-2"),
        ({"batch": 0}, ConfigError, "batch=0"),
        ({"names": ["a", "a", "b"]}, ConfigError, 'two signals named "a"'),
        ({"labels": [1]}, ShapeMismatch, "1 labels for 3 signals"),
        ({"splits": ["train"]}, ShapeMismatch, "1 splits for 3 signals"),
        ({"splits": {"train": 0.5}}, ConfigError, "sum to 1"),
        ({"format": "fixed"}, PluginError, "built a FunctionField, expected an nn.Module"),
        ({"lr": 1e30, "steps": 9}, NotFinite, "diverged.*lower lr"),
    ],
)
def test_mistakes_are_told_before_or_after_the_work(changes, error, words):
    with pytest.raises(error, match=words):
        fit(IMAGES[:3], **{"format": "swell", "steps": 2, **changes})


def test_no_signals():
    with pytest.raises(ShapeMismatch, match="no signals"):
        fit([], "swell")


# parts


def test_plans_of_points():
    image, sound, formula = (read_signal(a) for a in (np.zeros((8, 8)), np.zeros(5000), IMAGES[0]))
    assert PointPlan.of(image, None, 2) == PointPlan(256, 16)
    assert PointPlan.of(image, None, 1) == PointPlan(64, 16)
    assert PointPlan.of(sound, None, 2) == PointPlan(4096, 16)
    assert PointPlan.of(read_signal(np.zeros((128, 128))), None, 2) == PointPlan(4096, 16)
    assert PointPlan.of(read_signal(np.zeros((256, 256))), None, 2) == PointPlan(4096, 64)
    assert PointPlan.of(formula, 100, 2).n == 100
    assert PointPlan.of(Signal("f", formula.field), None, 2).n == 1024
    plan = PointPlan(8, 4)
    assert plan.pool(Box.unit(2), seeded(0, "a")).shape == (4, 8, 2)
    order = plan.order(10, seeded(0, "a"))
    assert sorted(order[:4]) == sorted(order[4:8]) == [0, 1, 2, 3] and len(order) == 10
    assert plan.order(0, seeded(0, "a")) == []


def test_points_of_a_pool_lie_on_domains_of_many_dimensions():
    for domain in (Box.unit(7), inrbridge.Sphere(), inrbridge.Torus((1.0, 2.0))):
        points = PointPlan(16, 2).pool(domain, seeded(0, "x"))
        assert bool(domain.contains(points).all())


def test_shares_are_kept_and_do_not_depend_on_other_names():
    names = [f"n{i}" for i in range(2000)]
    words = deal(names, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=5)
    assert abs(words.count("train") / 2000 - 0.7) < 0.03 and abs(words.count("test") / 2000 - 0.2) < 0.03
    assert deal(names[500:510], {"train": 0.7, "val": 0.1, "test": 0.2}, seed=5) == words[500:510]
    assert deal(names, {"train": 1.0}) == ["train"] * 2000


def test_how_many_fields_share_a_call():
    state, cpu = {"w": torch.zeros(1, 32, 32)}, torch.device("cpu")
    assert fields_at_once(state, PointPlan(256, 16), 512, cpu) == 32
    assert fields_at_once(state, PointPlan(256, 16), 5000, cpu) == 64
    assert fields_at_once(state, PointPlan(256, 16), 3, cpu) == 16
    assert fields_at_once(state, PointPlan(2**20, 16), 3, cpu) == 1


def test_pieces_side_by_side_keep_their_order_and_the_first_failure_is_told():
    counted = []

    def work(piece, tick):
        tick(piece)
        if piece == 3:
            raise ValueError("three")
        return torch.get_num_threads() if piece < 3 else piece

    before = torch.get_num_threads()
    assert run_side_by_side(work, [0, 1, 2], 3, counted.append) == [1, 1, 1]
    assert sorted(counted) == [0, 1, 2]
    assert run_side_by_side(work, [5], 3, counted.append) == [5]
    with pytest.raises(ValueError, match="three"):
        run_side_by_side(work, list(range(20)), 2, counted.append)
    assert torch.get_num_threads() == before
