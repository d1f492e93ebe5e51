"""Floor 7: open, identify, save and build fields by whatever format fits.

Any error of a format is told with path, format, distribution and version; a file that nobody or more than one
claims is refused with the next step. Nothing in a file is executed, and claimed sizes are checked first.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from inrbridge.domains import Domain
from inrbridge.errors import (
    AmbiguousFormat,
    CannotOpen,
    CannotSave,
    ConfigError,
    InrBridgeError,
    MissingFile,
    NotPermitted,
    PluginError,
    PluginWarning,
    UnknownFormat,
    did_you_mean,
)
from inrbridge.field import Field, channel_names
from inrbridge.formats import Format, Probe
from inrbridge.known import KNOWN_PLUGINS, pip_line
from inrbridge.plugins import FAILED, all_formats, get_format, registry


@dataclass(frozen=True)
class Verdict:
    """What one format says about a file."""

    format: str
    distribution: str
    version: str
    is_recognized: bool
    error: str = ""


def open_field(path: str | Path, format: str | None = None, **options) -> Field:
    """Open a file or folder as a field on the CPU.

    Args:
        path: file or folder.
        format: name of the format; None asks every installed one.
        options: named options of the format's `open`.

    Returns:
        A field with its format's name in `.format`.

    Raises:
        MissingFile: nothing is there.
        UnknownFormat, AmbiguousFormat: no format, or more than one, claims the file.
        CannotOpen: the file is damaged, or the format failed on it.
        ConfigError: the format has no such option.
    """
    probe, chosen = _choose(path, format, options)
    with _blamed(probe, chosen):
        field = chosen.open(probe.path, **options)
    return _checked(field, chosen, "open")


def open_fields(path: str | Path, format: str | None = None, **options) -> Iterator[Field]:
    """Open every field of a file that may hold several, one after the other; `open_field(path, index=i)` opens one of them.

    Raises:
        InrBridgeError: as for `open_field`; those before it were given.
    """
    probe, chosen = _choose(path, format, options)
    with _blamed(probe, chosen):
        fields = iter(chosen.open_all(probe.path, options))
    while True:
        with _blamed(probe, chosen):
            field = next(fields, None)
        if field is None:
            return
        yield _checked(field, chosen, "open")


def count_fields(probe: Probe, format: Format) -> int:
    """Return how many fields a file holds.

    Raises:
        CannotOpen: the format cannot tell.
    """
    with _blamed(probe, format):
        return int(format.count(probe))


def _choose(path: str | Path, format: str | None, options: Mapping[str, object]) -> tuple[Probe, Format]:
    probe = look(path)
    chosen = get_format(format if format is not None else identify_probe(probe))
    check_options(chosen, "open", options)
    return probe, chosen


@contextlib.contextmanager
def _blamed(probe: Probe, format: Format) -> Iterator[None]:
    """Tell what a format raises over a file with path, format, distribution and version."""
    title = f"Cannot open {probe.path} as {_signed(format)}"
    if probe.damage:
        raise CannotOpen(f"{title}: {probe.damage}; copy or download it again.")
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise CannotOpen(f"{title}: {_reason(error)}") from error


def identify(path: str | Path) -> str:
    """Return the name of the one format that claims a file.

    Raises:
        MissingFile, UnknownFormat, AmbiguousFormat, CannotOpen: as for `open_field`.
    """
    return identify_probe(look(path))


def look(path: str | Path) -> Probe:
    """Return the probe of a path that exists."""
    probe = Probe(path)
    try:
        is_there = probe.path.exists()
        if is_there and not (probe.path.is_file() or probe.path.is_dir()):  # a pipe or device may never end
            raise CannotOpen(f"Cannot read {probe.path}: it is neither a file nor a folder; copy what it gives into a file.")
        if is_there:
            _ = probe.head  # read now: what cannot be read is told before a format is blamed for it
    except PermissionError as error:
        raise NotPermitted(f"Cannot read {probe.path}: permission denied; change its permissions, or ask its owner.") from error
    except OSError as error:
        raise CannotOpen(f"Cannot read {probe.path}: {error.strerror or error}; check the path and its disk.") from error
    if not is_there:
        raise MissingFile(f"There is nothing at {probe.path}, expected a file or folder; check the path (now in {Path.cwd()}).")
    return probe


def identify_probe(probe: Probe) -> str:
    """Name the format: the one written in the file's own header, else the only one that recognizes it."""
    if isinstance(probe.native.get("format"), str):
        return probe.native["format"]
    claims = [verdict for verdict in verdicts(probe) if verdict.is_recognized]
    if len(claims) > 1:
        names = " and ".join(f'"{claim.format}" ({claim.distribution} {claim.version})' for claim in claims)
        raise AmbiguousFormat(
            f"{probe.path} is claimed by the formats {names}, expected one; choose: --format {claims[0].format} "
            f'on the command line, open_field(path, format="{claims[0].format}") in Python.'
        )
    if not claims:
        raise _nobody(probe)
    return claims[0].format


def verdicts(probe: Probe) -> list[Verdict]:
    """Ask every installed format about a file, sorted by name; one that fails counts as no."""
    results = []
    for format in all_formats():
        owner, error, is_recognized = registry().owner(format.name), "", False
        try:
            is_recognized = bool(format.recognizes(probe))
        except PermissionError:
            raise
        except Exception as failure:
            error = _reason(failure)
            _report_recognizes(format, failure)
        results.append(Verdict(format.name, owner.distribution, owner.version, is_recognized, error))
    return results


def save_field(field: Field, path: str | Path) -> None:
    """Write a field in its own format.

    Raises:
        CannotSave: the field belongs to no format, or the format cannot write it there.
    """
    name = getattr(field, "format", None)
    if not isinstance(name, str):
        raise CannotSave(
            f"Got a {type(field).__name__} that belongs to no format, expected a field that was opened, built or fitted; "
            "fit it first: inrbridge.fit([field], format=...)."
        )
    format = get_format(name)
    try:
        format.save(field, Path(path))
    except InrBridgeError:
        raise
    except Exception as error:
        raise CannotSave(f"Cannot save to {path} as {_signed(format)}: {_reason(error)}") from error


def build_field(format_name: str, domain: Domain, channels: int, *, generator: torch.Generator | None = None, **options) -> Field:
    """Return a fresh trainable field of a format on `domain`; the options are those of the format's `build`.

    Raises:
        UnknownFormat, ConfigError: no such format or option, or a format that only opens files.
    """
    format = get_format(format_name)
    check_options(format, "build", options)
    try:
        field = format.build(domain, channels, generator=generator, **options)
    except InrBridgeError:
        raise
    except Exception as error:
        raise PluginError(f"Cannot build a field of {_signed(format)}: {_reason(error)}") from error
    return _checked(field, format, "build")


def check_options(format: Format, method: str, given: Mapping[str, object]) -> None:
    """Raise ConfigError unless `open`, `build` or `sample` of a format has the options given, and needs no others."""
    known = format.options(method)
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f'Format "{format.name}" has no option "{name}" of `{method}`; expected among: {listed}.'
                f"{did_you_mean(name, known)}"
            )
    missing = [name for name in format.required(method) if name not in given]
    if missing:
        raise ConfigError(f'Format "{format.name}" needs the option "{missing[0]}" of `{method}`; give {missing[0]}=... .')


def _checked(field: Field, format: Format, method: str) -> Field:
    """Check the answer of a format and stamp it with the format's name where it carries none."""
    title = f"{_signed(format)} returned from `{method}` a {type(field).__name__}"
    if not isinstance(field, Field):
        raise PluginError(f"{title}, expected a field: a callable with `domain` and `channels`.")
    if not isinstance(field.domain, Domain):
        raise PluginError(f"{title} with the domain {field.domain!r:.80}, expected an inrbridge domain such as Box.centered(2).")
    if not isinstance(field.channels, int) or isinstance(field.channels, bool) or field.channels < 1:
        raise PluginError(f"{title} with channels {field.channels!r:.80}, expected a whole number of at least 1.")
    if len(channel_names(field)) != field.channels:
        raise PluginError(f"{title} with channel names {channel_names(field)}, expected {field.channels} of them.")
    if getattr(field, "format", None) is None:
        with contextlib.suppress(AttributeError, TypeError):  # a frozen field is a field too
            field.format = format.name
    return field


def absent_readers(probe: Probe) -> list[str]:
    """Name the known plugins that are not installed and may read a file, judged by its names alone."""
    records = registry().records
    present = {name for record in records for name in (record.name, *record.formats)}
    return [name for name, known in KNOWN_PLUGINS.items() if name not in present and known.matches(probe)]


def _nobody(probe: Probe) -> InrBridgeError:
    if probe.damage:
        return CannotOpen(f"Cannot open {probe.path}: {probe.damage}; copy or download it again.")
    records = registry().records
    loaded = sorted(name for record in records for name in record.formats)
    hints = [
        f"This looks like {'an' if KNOWN_PLUGINS[name].summary[0] in 'aeiou' else 'a'} {KNOWN_PLUGINS[name].summary}; "
        f"install its reader: {pip_line(name)}"
        for name in absent_readers(probe)
    ]
    failed = [record.name for record in records if record.status == FAILED]
    if failed:
        hints.append(f"Failed to load: {', '.join(failed)} (run: inrbridge doctor)")
    if probe.refused and not hints:
        return CannotOpen(
            f"Cannot open {probe.path}: {probe.refused}, and inrbridge never runs code from a file; "
            "save the tensors alone (a state dict, or safetensors) with the program that wrote it."
        )
    if probe.refused:
        hints.insert(0, f"It was not listed, for {probe.refused}, which inrbridge never does")
    own = _not_a_field(probe)
    if own and not hints:
        return UnknownFormat(f"Got {probe.path}, which is {own}")
    advice = " ".join(f"{hint}." for hint in hints) or "Name one with --format, or write a plugin: inrbridge new-plugin NAME."
    return UnknownFormat(
        f"No installed format recognizes {probe.path}: found {probe.describe()}. "
        f"Installed: {', '.join(loaded) or 'none'}. {advice}"
    )


def _not_a_field(probe: Probe) -> str:
    """Say what to do with files that belong here but are no fields; empty for all others."""
    path = probe.path
    if probe.magic in ("png", "jpeg", "wav"):
        return f"a signal ({probe.magic}), expected a field; make a field of it: inrbridge fit {path} -o STORE"
    if "manifest.json" in probe.listing:
        return (
            f"a store of fields, expected a single field; see one (inrbridge preview {path} --item 0), open one "
            f"(inrbridge.data.Store({str(path)!r}).field(0)), or measure a model on all of them (inrbridge eval RUN {path})"
        )
    if {"config.toml", "config.json"} & set(probe.listing) and any(n.startswith(("step-", "model.")) for n in probe.listing):
        return f"a trained model, expected a field; apply it: inrbridge predict {path} FILE"
    if probe.magic == "folder" and len(probe.listing) == 0:
        return "an empty folder, expected a field; check the path"
    if probe.magic == "folder":
        return (
            f"a folder of {len(probe.listing)} entries that no format takes as one field (installed: "
            f"{', '.join(sorted(name for record in registry().records for name in record.formats)) or 'none'}); "
            f"name the files in it, such as {path}/*, or the format with --format"
        )
    return ""


def _report_recognizes(format: Format, error: Exception) -> None:
    registry_ = registry()
    if registry_.strict:
        raise PluginError(f"{_signed(format)} failed to look at a file: {_reason(error)}") from error
    if format.name not in registry_.reported:
        registry_.reported.add(format.name)
        text = f"{_signed(format)} failed to look at a file and is passed over: {_reason(error)}"
        warnings.warn(text, PluginWarning, stacklevel=5)


def _signed(format: Format) -> str:
    return f'"{format.name}" ({registry().owner(format.name).owner})'


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:500] or "no reason given"
    return text if isinstance(error, InrBridgeError) else f"{type(error).__name__}: {text}"
