"""Floor 8: what is to be fitted, and how: one job a signal, its settings, its place in a split, its fingerprint in a store."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from inrbridge.errors import ConfigError, ShapeMismatch, StoreError, did_you_mean
from inrbridge.field import channel_names
from inrbridge.fitting.optimizing import PointPlan
from inrbridge.formats import Format
from inrbridge.grid import GridField
from inrbridge.plugins import get_format
from inrbridge.signals import Signal
from inrbridge.writing import written_whole

RECORD = "fit.json"


@dataclass(frozen=True, eq=False)
class Job:
    """One signal with the settings that it is fitted under."""

    signal: Signal
    split: str | None
    format: str
    options: Mapping[str, object]  # of the format's `sample` where it brings one, else of its `build`
    steps: int
    lr: float
    plan: PointPlan
    seed: int

    @property
    def settings(self) -> dict:
        """What decides the result, beside the signal itself (JSON)."""
        if samples_signals(get_format(self.format)):
            return {"format": self.format, "options": dict(self.options)}
        return {
            "format": self.format,
            "options": dict(self.options),
            "steps": self.steps,
            "lr": self.lr,
            "points": self.plan.n,
            "blocks": self.plan.blocks,
            "seed": self.seed,
        }

    @property
    def group(self) -> str:
        """Equal for jobs that may be fitted side by side."""
        field = self.signal.field
        return json.dumps([self.settings, str(field.domain), field.channels, channel_names(field)], sort_keys=True, default=str)

    def generator(self) -> torch.Generator:
        """Return the generator of this field's first weights: the seed and the name decide, not the company or the order."""
        return seeded(self.seed, self.signal.name)


def seeded(seed: int, word: str) -> torch.Generator:
    """Return a CPU generator of its own for a word."""
    digest = hashlib.sha256(f"{seed}:{word}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def plan_jobs(
    signals: Sequence[Signal],
    formats: str | Sequence[str],
    options: Mapping[str, object],
    format_options: Mapping[str, Mapping[str, object]],
    splits: str | Sequence[str | None] | Mapping[str, float] | None,
    *,
    steps: int | None,
    lr: float | None,
    seed: int,
    points: int | None,
    oversample: float,
) -> list[Job]:
    """Settle the settings of every signal; anything wrong is said before work begins."""
    if not signals:
        raise ShapeMismatch("Got no signals to fit, expected at least one; check the folder or the list.")
    formats = [formats] * len(signals) if isinstance(formats, str) else list(formats)
    if len(formats) != len(signals):
        raise ShapeMismatch(f"Got {len(formats)} formats for {len(signals)} signals, expected one name, or one for each signal.")
    _check_numbers(steps=steps, lr=lr, points=points, oversample=oversample)
    _check_names([signal.name for signal in signals])
    chosen = {name: get_format(name) for name in dict.fromkeys(formats)}
    settled = _settle_options(chosen, options, format_options, steps, lr)
    placed = _place_in_splits(signals, splits, seed)
    jobs = []
    for signal, name, split in zip(signals, formats, placed, strict=True):
        own = dict(settled[name])
        its_steps, its_lr = int(own.pop("steps")), float(own.pop("lr"))
        if signal.shape is not None and "shape" in _known_options(chosen[name]) and samples_signals(chosen[name]):
            own.setdefault("shape", list(signal.shape))  # a grid as fine as the signal loses nothing
        jobs.append(Job(signal, split, name, own, its_steps, its_lr, PointPlan.of(signal, points, oversample), int(seed)))
    return jobs


def samples_signals(format: Format) -> bool:
    """Say whether the format reads its fields off the signals, with no optimisation."""
    return "sample" in format.abilities()


def _known_options(format: Format) -> dict[str, object]:
    return format.options("sample" if samples_signals(format) else "build")


def _settle_options(chosen, options, format_options, steps, lr) -> dict[str, dict]:
    """Give each format the options that it knows; one that no format knows is an error."""
    for name in format_options:
        if name not in chosen:
            raise ConfigError(f'Got options for the format "{name}", which no signal is fitted in ({", ".join(chosen)}).')
    known = {name: _known_options(format) for name, format in chosen.items()}
    for option in options:
        if not any(option in table for table in known.values()):
            listed = sorted(set().union(*known.values()))
            raise ConfigError(
                f'Got the option "{option}", expected among those of {", ".join(chosen)}: {", ".join(listed) or "none"}.'
                f"{did_you_mean(option, listed)}"
            )
    settled = {}
    for name, format in chosen.items():
        special = dict(format_options.get(name, {}))
        for option in special:
            if option not in known[name] and option not in ("steps", "lr"):
                listed = [*known[name], "steps", "lr"]
                raise ConfigError(
                    f'Format "{name}" has no option "{option}"; expected among: {", ".join(sorted(listed))}.'
                    f"{did_you_mean(option, listed)}"
                )
        defaults = {"steps": 500, "lr": 1e-3, **format.fit_defaults()}
        common = {k: v for k, v in (("steps", steps), ("lr", lr)) if v is not None}
        settled[name] = {**defaults, **common, **{k: v for k, v in options.items() if k in known[name]}, **special}
        _check_numbers(steps=settled[name]["steps"], lr=settled[name]["lr"])
    return settled


def _check_numbers(**numbers: float | None) -> None:
    least = {"steps": 0, "points": 1}
    for name, value in numbers.items():
        if value is None:
            continue
        whole = name in least
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or (value < least[name] if whole else value <= 0):
            expected = f"a whole number of at least {least[name]}" if whole else "a number above 0"
            raise ConfigError(f"Got {name}={value!r}, expected {expected}.")


def _check_names(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f'Got two signals named "{name}", expected each name once; pass names=[...], one for each signal.')
        seen.add(name)


def deal(names: Sequence[str], shares: Mapping[str, float], seed: int = 0) -> list[str]:
    """Draw a word for each name, in these shares; a name's word does not depend on the other names.

    >>> deal(["d", "e", "f"], {"train": 0.5, "test": 0.5})
    ['train', 'test', 'train']
    """
    weights = list(shares.values())
    if not weights or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6:
        raise ConfigError(f'Got the shares {dict(shares)}, expected shares that sum to 1, e.g. {{"train": 0.8, "test": 0.2}}.')
    edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)[:-1]
    draws = [torch.rand((), generator=seeded(seed, f"{sorted(shares)}:{name}"), dtype=torch.float64) for name in names]
    return [list(shares)[int(torch.searchsorted(edges, draw, right=True))] for draw in draws]


def _place_in_splits(signals: Sequence[Signal], splits, seed: int) -> list[str | None]:
    if splits is None:
        return [signal.split for signal in signals]
    if isinstance(splits, str):
        return [splits] * len(signals)
    if isinstance(splits, Mapping):
        return deal([signal.name for signal in signals], splits, seed)
    if len(splits) != len(signals):
        raise ShapeMismatch(f"Got {len(splits)} splits for {len(signals)} signals, expected one for each.")
    return [None if split is None else str(split) for split in splits]


class Fingerprints:
    """The file `fit.json` beside a store's manifest: under which settings, from which samples, each of its fields was fitted.

    It is written before the fields are, so that an interrupted fit can tell what it may leave out and what it must refuse.
    """

    def __init__(self, folder: Path):
        self.path = folder / RECORD
        self.settings: list[dict] = []
        self.items: dict[str, list] = {}  # name -> [index into settings, digest of the samples or None]
        if self.path.exists():
            try:
                held = json.loads(self.path.read_text(encoding="utf-8"))
                self.settings, self.items = list(held["settings"]), dict(held["items"])
                if not all(isinstance(self.settings[place], dict) for place, _ in self.items.values()):
                    raise ValueError("an entry of settings is no table")
            except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
                raise StoreError(
                    f"{self.path} is damaged ({error}); restore it from a copy, or fit into another folder."
                ) from error

    def open_jobs(self, jobs: Sequence[Job], stored: set[str]) -> list[Job]:
        """Return the jobs whose fields are not stored yet; enter them.

        Raises:
            StoreError: a stored field of the same name came from other settings or another signal.
        """
        places = {json.dumps(known, sort_keys=True): place for place, known in enumerate(self.settings)}
        left = []
        for job in jobs:
            name, settings = job.signal.name, json.loads(json.dumps(job.settings))
            digest = _digest(job.signal)
            if name in stored:
                self._check_same(name, settings, digest)
                continue
            text = json.dumps(settings, sort_keys=True)
            if text not in places:
                places[text] = len(self.settings)
                self.settings.append(settings)
            self.items[name] = [places[text], digest]
            left.append(job)
        if left:
            text = json.dumps({"settings": self.settings, "items": self.items})
            with written_whole(self.path, StoreError) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return left

    def _check_same(self, name: str, settings: dict, digest: str | None) -> None:
        advice = "fit into another folder, or under other names."
        if name not in self.items:
            raise StoreError(f'{self.path.parent} holds a field "{name}" that was not fitted here, expected a new name; {advice}')
        place, known = self.items[name]
        before = self.settings[place]
        changed = [key for key in settings if settings[key] != before.get(key)]
        if changed:
            spelled = ", ".join(f"{key} {before.get(key)!r} -> {settings[key]!r}" for key in changed)
            raise StoreError(
                f'{self.path.parent} holds "{name}" fitted under other settings ({spelled}), expected the same ones to go on; '
                f"repeat the settings, or {advice}"
            )
        if None not in (known, digest) and known != digest:
            raise StoreError(f'{self.path.parent} holds "{name}" fitted to other samples than those given now; {advice}')


def _digest(signal: Signal) -> str | None:
    if not isinstance(signal.field, GridField):
        return None  # a callable's values may differ by rounding from one machine to the next
    samples = signal.field.samples.detach().cpu().contiguous().numpy()
    return hashlib.sha256(samples.tobytes()).hexdigest()[:16]
