"""Floor 8: a field of another format for any field, in particular for the output of a net.

An output cannot be detached from its net and its input without losing something (Wang & Golland 2023, section 7, "Inseparable
outputs"). This is the exchange: a field that stands for itself, and the measured difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from inrbridge import sampling
from inrbridge.domains import Domain
from inrbridge.errors import CannotSave, ConfigError
from inrbridge.field import Field, are_classes
from inrbridge.fitting.optimizing import BEST_PSNR
from inrbridge.formats import Format
from inrbridge.io import open_field, save_field
from inrbridge.plugins import get_format
from inrbridge.signals import Signal
from inrbridge.stacking import FieldStack
from inrbridge.transforms import channel_ranges

FRESH = 4096  # points at which the deviation is measured; none of them was fitted
GRID_POINTS = 64  # samples along each axis of a grid, where its shape is not told


@dataclass(frozen=True)
class Deviation:
    """How far one field is from another, over fresh points of the domain: values relative to the span of the first.

    rms and greatest are shares of `span`, the difference of the greatest and the least value; psnr is -20 log10(rms) in dB.
    """

    rms: float
    greatest: float
    psnr: float
    span: float
    points: int


@torch.no_grad()
def deviation(field: Field, other: Field, n: int = FRESH, seed: int = 1) -> Deviation:
    """Compare two fields on one domain at n points, by quadrature.

    Raises:
        ConfigError: the fields have other domains or channels.
    """
    if field.domain != other.domain or field.channels != other.channels:
        raise ConfigError(
            f"Got fields on {field.domain} and on {other.domain} with {field.channels} and {other.channels} channels, expected "
            "one domain and as many channels."
        )
    points = _fresh_points(field.domain, n, seed)
    truth, values = (f(points.points).double() for f in (field, other))
    span = float(truth.max() - truth.min()) or 1.0
    weights = points.weights.double() / points.weights.double().sum()
    errors = (values - truth).abs() / span
    rms = math.sqrt(float((errors.square().mean(-1) * weights).sum()))
    psnr = min(BEST_PSNR, -20 * math.log10(rms)) if rms > 0 else BEST_PSNR
    return Deviation(rms, float(errors.max()), psnr, span, len(points))


def distill(
    source: Field | str | Path | Iterable[Field | str | Path],
    format: str = "siren",
    out: str | Path | None = None,
    *,
    n: int | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: bool | Callable[[int, int | None, Mapping], object] | None = None,
    **options: object,
) -> Field | list[Field]:
    """Fit a field of another format to a field, whatever it is: the output of a net, a formula, a field seen through transforms.

    Args:
        source: a field, or its path; or several, which are fitted side by side.
        format: of the new field, e.g. "siren", "ngp" or "grid".
        out: file to write the new field to; of several fields a folder. None: it is given only.
        n: points that a step of the fit looks at (what `fit` calls points).
        steps, lr, seed, progress: as in `fit`.
        names: one for each field, of its file in a folder; None: those of the files, or numbers.
        options: of the format's `build` or `sample`, e.g. width=64 or shape=128.

    Returns:
        The new field, or several in order, each with `notes`: what it was made from and its `deviation`, which its file keeps.

    Raises:
        ConfigError, UnknownFormat: a setting that does not exist or does not fit. CannotSave: the place cannot be written.

    >>> from inrbridge import Box, FunctionField
    >>> wave = FunctionField(lambda x: torch.sin(3 * x[..., :1]), Box.centered(2), 1)
    >>> distill(wave, "grid", shape=32).notes["rms"] < 1e-3
    True
    """
    from inrbridge.fitting import fit  # of the package that this file is part of

    is_one = isinstance(source, str | Path) or (callable(source) and not isinstance(source, FieldStack))
    sources = [source] if is_one else list(source)
    if not sources:
        raise ConfigError("Got no fields to distill, expected at least one.")
    stems = _stems(sources) if names is None else list(names)
    targets = _targets(stems, out, is_one)
    fields = [open_field(each) if isinstance(each, str | Path) else each for each in sources]
    signals = [Signal(stem, field, peak=_peak(field)) for stem, field in zip(stems, fields, strict=True)]
    options = {**_defaults(get_format(format), fields, n), **options}
    fitted = fit(signals, format, steps=steps, lr=lr, points=n, seed=seed, progress=progress, **options)
    for field, new, stem, target in zip(fields, fitted, stems, targets, strict=True):
        found = {name: _short(value) for name, value in asdict(deviation(field, new)).items()}
        kind = getattr(field, "format", None) or type(field).__name__
        new.notes = {"distilled_from": f"{kind} {stem}", **found, **({"are_classes": True} if are_classes(field) else {})}
        if target is not None:
            save_field(new, target)
    return fitted[0] if is_one else fitted


def _defaults(format: Format, fields: Sequence[Field], n: int | None) -> dict[str, object]:
    """A grid as fine as the points that it is to look at, or GRID_POINTS along each axis."""
    if "sample" not in format.abilities() or "shape" not in format.options("sample"):
        return {}
    d = fields[0].domain.dim
    return {"shape": [GRID_POINTS if n is None else max(2, math.ceil(n ** (1 / d)))] * d}


def _fresh_points(domain: Domain, n: int, seed: int):
    return sampling.sobol(domain, n, torch.Generator().manual_seed(seed), dtype=torch.float32)


def _peak(field: Field) -> float | None:
    """The span of the values, where the field knows it."""
    ranges = channel_ranges(field)
    if any(pair is None for pair in ranges):
        return None
    return max(high for _, high in ranges) - min(low for low, _ in ranges)


def _targets(stems: Sequence[str], out: str | Path | None, is_one: bool) -> list[Path | None]:
    if out is None:
        return [None] * len(stems)
    out = Path(out)
    if is_one and not out.is_dir():
        return [out]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotSave(f"Cannot make the folder {out} ({error}); choose another.") from error
    return [out / f"{stem}.safetensors" for stem in stems]


def _stems(sources: Sequence) -> list[str]:
    stems = [Path(each).stem if isinstance(each, str | Path) else f"field-{i:04d}" for i, each in enumerate(sources)]
    return stems if len(set(stems)) == len(stems) else [f"{i:04d}-{stem}" for i, stem in enumerate(stems)]


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
