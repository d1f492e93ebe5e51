"""Floor 7: find the plugins, load each one alone, check what it brings, and keep a record of what went wrong.

A plugin is a distribution with an entry point in group `inrbridge`; its name is the name of the format, so that a
format asked for by name imports one plugin only. A plugin may fail while its metadata is scanned, on import, when
its hooks are validated, or in `inrbridge_formats()`: it is unregistered and recorded, and everything else goes on.
`INRBRIDGE_PLUGINS` limits the plugins ("" for none, "siren,ngp" for these); `INRBRIDGE_STRICT=1` raises instead.
"""

from __future__ import annotations

import inspect
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions

import pluggy

from inrbridge import __version__, hookspecs
from inrbridge.errors import PluginError, PluginWarning, UnknownFormat, did_you_mean
from inrbridge.formats import Format
from inrbridge.hookspecs import API_VERSION, hookimpl
from inrbridge.known import KNOWN_PLUGINS, pip_line

GROUP = "inrbridge"
BUILTIN = {"grid": "inrbridge.grid:GridFormat", "output": "inrbridge.outputs:OutputFormat"}
SESSION = "register() in this session"

NOT_LOADED, LOADED, FAILED, DISABLED = "not loaded", "loaded", "failed", "disabled"


@dataclass
class PluginRecord:
    """One plugin: where it comes from, whether it loaded, and if not, at which place and why."""

    name: str
    distribution: str
    version: str = ""
    target: str = ""
    status: str = NOT_LOADED
    place: str = ""  # where it failed: metadata, import, hooks, formats
    error: str = ""
    seconds: float = 0.0
    formats: tuple[str, ...] = ()
    cause: Exception | None = field(default=None, repr=False, compare=False)
    entry: EntryPoint | None = field(default=None, repr=False, compare=False)

    @property
    def owner(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def is_builtin(self) -> bool:
        return self.target in BUILTIN.values() and self.distribution == "inrbridge"

    def failure(self) -> PluginError:
        """Return the error that says why this plugin is of no use now."""
        error = PluginError(f'Plugin "{self.name}" ({self.owner}) failed to load: {self.error} Run: inrbridge doctor')
        error.__cause__ = self.cause
        return error

    def to_json(self) -> dict:
        """Return the plain facts."""
        facts = ("name", "distribution", "version", "target", "status", "place", "error", "seconds", "formats")
        return {fact: getattr(self, fact) for fact in facts}


class Registry:
    """The plugins of one process and the formats they brought so far."""

    def __init__(self, environ: Mapping[str, str] | None = None):
        environ = os.environ if environ is None else environ
        chosen = environ.get("INRBRIDGE_PLUGINS")
        self.chosen = None if chosen is None else {word.strip() for word in chosen.split(",") if word.strip()}
        self.strict = environ.get("INRBRIDGE_STRICT", "") not in ("", "0")
        self.records = [
            PluginRecord(name, "inrbridge", __version__, target, entry=EntryPoint(name, target, GROUP))
            for name, target in BUILTIN.items()
        ]
        self.records += sorted(scan(), key=lambda record: (record.name, record.distribution))
        self._formats: dict[str, tuple[Format, PluginRecord]] = {}
        self._contested: dict[str, str] = {}  # names that two plugins claim -> what to say about it
        self.reported: set[str] = set()  # formats whose failure to look at a file was told
        self._has_warned = False
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._select()

    def get(self, name: str) -> Format:
        """Return the format of this name, importing its plugin only where one is named so."""
        named = [record for record in self.records if record.name == name and record.status != DISABLED]
        for record in named:
            self._load(record)
        if name not in self._formats and not any(record.status == FAILED for record in named):
            self.load_all()
        self._raise_if_strict()
        if name not in self._formats:
            raise self._absent(name)
        return self._formats[name][0]

    def all(self) -> list[Format]:
        """Load every plugin and return the formats, sorted by name; warn once when some failed."""
        self.load_all()
        self._raise_if_strict()
        count = sum(record.status == FAILED for record in self.records)
        if count and not self._has_warned:
            self._has_warned = True
            text = f"{count} plugin{'s' if count > 1 else ''} failed to load: run `inrbridge doctor`"
            warnings.warn(text, PluginWarning, stacklevel=4)
        return [self._formats[name][0] for name in sorted(self._formats)]

    def load_all(self) -> None:
        """Try every plugin; failures are recorded, never raised."""
        for record in list(self.records):
            self._load(record)

    def loaded(self, name: str) -> Format:
        """Return a format that is loaded already, whatever the state of the others."""
        return self._formats[name][0]

    def owner(self, name: str) -> PluginRecord:
        """Return the record of the plugin that brought a loaded format."""
        return self._formats[name][1]

    def register(self, format: Format) -> None:
        """Take a format that no plugin brings; running the same cell again replaces it."""
        target = f"{type(format).__module__}:{type(format).__qualname__}"
        record = PluginRecord(getattr(format, "name", "?"), SESSION, target=target)
        check_format(format, record)
        for other in [r for r in self.records if format.name in (r.name, *r.formats) and r.status not in (FAILED, DISABLED)]:
            if (other.distribution, other.target) != (SESSION, target):
                raise PluginError(
                    f'The name "{format.name}" of {target} is taken by {other.owner} ({other.target}); choose another name.'
                )
            self._withdraw(other)
            self.records.remove(other)
        record.status, record.formats = LOADED, (format.name,)
        self.records.append(record)
        self._formats[format.name] = (format, record)

    def _select(self) -> None:
        for record in self.records:
            if self.chosen is not None and not record.is_builtin and record.name not in self.chosen:
                record.status = DISABLED
        open_ones = [record for record in self.records if record.status == NOT_LOADED]
        for record in open_ones:
            twins = [other for other in open_ones if other.name == record.name]
            if record.name in BUILTIN and not record.is_builtin:
                self._fail(record, PluginError(f'the name "{record.name}" belongs to inrbridge itself; it must choose another.'))
            elif record.name not in BUILTIN and len(twins) > 1:
                self._contested[record.name] = _two_claim(record.name, *twins[:2])
                self._fail(record, PluginError(self._contested[record.name]))

    def _load(self, record: PluginRecord) -> None:
        if record.status != NOT_LOADED:
            return
        started = time.perf_counter()
        try:
            formats = self._ask(record)
            self._claim(record, formats)
            record.status, record.place = LOADED, ""
        except Exception as error:  # whatever a stranger's code raises
            self._fail(record, error)
        record.seconds = time.perf_counter() - started

    def _ask(self, record: PluginRecord) -> list[Format]:
        record.place = "import"
        plugin = record.entry.load()
        if record.is_builtin:
            plugin = _Bundled(plugin)
        record.place = "hooks"
        hash(plugin)  # pluggy keeps plugins in sets: one that cannot be hashed would break the others
        if self._manager.is_registered(plugin):  # a second entry point of the same module: all is done
            return []
        self._manager.register(plugin, name=f"{record.distribution}:{record.name}")
        self._manager.check_pending()
        if not self._manager.get_hookcallers(plugin):
            raise PluginError("it has no hook; decorate a function `inrbridge_formats` with @inrbridge.hookimpl.")
        record.place = "formats"
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        answers = self._manager.subset_hook_caller("inrbridge_formats", remove_plugins=others)()
        formats = answers[0] if answers else None
        if not isinstance(formats, list | tuple) or not formats:
            raise PluginError(f"inrbridge_formats() returned {formats!r:.80}, expected a list of Format objects.")
        return list(formats)

    def _claim(self, record: PluginRecord, formats: list[Format]) -> None:
        """Check all formats of a plugin and take all or none."""
        for index, format in enumerate(formats):
            check_format(format, record)
            name = format.name
            if name in (earlier.name for earlier in formats[:index]):
                raise PluginError(f'inrbridge_formats() returned two formats "{name}", expected each name once.')
            if name in self._contested:
                raise PluginError(self._contested[name])
            if name in self._formats:
                other = self._formats[name][1]
                if other.is_builtin or other.distribution == SESSION:
                    raise PluginError(f'its format name "{name}" is taken by {other.owner}; it must choose another.')
                self._contested[name] = _two_claim(name, other, record)
                self._withdraw(other)
                self._fail(other, PluginError(self._contested[name]))
                raise PluginError(self._contested[name])
        for format in formats:
            self._formats[format.name] = (format, record)
        record.formats = tuple(format.name for format in formats)

    def _withdraw(self, record: PluginRecord) -> None:
        for name in record.formats:
            self._formats.pop(name, None)
        record.formats = ()

    def _fail(self, record: PluginRecord, error: Exception) -> None:
        record.status, record.cause = FAILED, error
        record.place = record.place or "metadata"
        record.error = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {_one_line(error)}."
        name = f"{record.distribution}:{record.name}"
        if self._manager.get_plugin(name) is not None:  # pluggy keeps the name of a plugin that failed to register
            self._manager.unregister(name=name)

    def _raise_if_strict(self) -> None:
        for record in self.records if self.strict else ():
            if record.status == FAILED:
                raise record.failure()

    def _absent(self, name: str) -> Exception:
        for record in self.records:
            if record.name == name and record.status == FAILED:
                return record.failure()
            if record.name == name and record.status == DISABLED:
                return UnknownFormat(f'Format "{name}" is installed but switched off; add it to INRBRIDGE_PLUGINS.')
        if name in self._contested:
            return PluginError(self._contested[name])
        installed = f"Installed: {', '.join(sorted(self._formats)) or 'none'}."
        if name in KNOWN_PLUGINS:
            return UnknownFormat(f'Format "{name}" is not installed; install it: {pip_line(name)}. {installed}')
        return UnknownFormat(f'There is no format "{name}". {installed}{did_you_mean(name, {*self._formats, *KNOWN_PLUGINS})}')


class _Bundled:
    """The plugin object of a format that comes with the core."""

    def __init__(self, kind: type[Format]):
        self.kind = kind

    @hookimpl
    def inrbridge_formats(self):
        return [self.kind()]


def scan() -> Iterator[PluginRecord]:
    """List the entry points of group `inrbridge` without importing any plugin; unreadable ones come as failed records."""
    seen = set()
    for distribution in distributions():
        name, text = "", ""
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if GROUP not in text:
                continue
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
            if not entries:
                continue
            name, version = distribution.metadata["Name"] or "", distribution.metadata["Version"] or ""
            if not name:
                raise PluginError("its metadata states no name.")
        except Exception as error:
            if GROUP in text:  # the broken metadata of unrelated distributions is no business of ours
                where = str(getattr(distribution, "_path", "")) or "unknown place"
                shown = name or os.path.basename(where).split("-")[0]
                reason = f"its metadata in {where} is broken: {_one_line(error)}."
                yield PluginRecord(shown, shown, "", where, FAILED, "metadata", reason, cause=error)
            continue
        for entry in entries:
            key = (re.sub(r"[-_.]+", "-", name).lower(), entry.name)
            if key not in seen:  # the same distribution twice on the path: Python uses the first
                seen.add(key)
                yield PluginRecord(entry.name, name, version, entry.value, entry=entry)


def check_format(format: Format, record: PluginRecord) -> None:
    """Raise PluginError unless the host can use this format."""
    if isinstance(format, type):
        raise PluginError(f"got the class {format.__name__}, expected an object: write {format.__name__}().")
    if not isinstance(format, Format):
        raise PluginError(f"got {format!r:.80}, expected an object of a subclass of inrbridge.Format.")
    name, api = getattr(format, "name", None), getattr(format, "api", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_.-]*", name):
        raise PluginError(f"got the format name {name!r}, expected lower case letters, digits, '-', '_' or '.', a letter first.")
    if api is None:
        raise PluginError(f"format '{name}' ({record.owner}) states no plugin API: add `api = {API_VERSION}` to its class.")
    if api != API_VERSION:
        older = isinstance(api, int) and api < API_VERSION
        raise PluginError(
            f"format '{name}' ({record.owner}) speaks plugin API {api}, this inrbridge speaks {API_VERSION}: "
            f"pip install -U {record.distribution if older else 'inrbridge'}"
        )
    if isinstance(format.suffixes, str) or not all(isinstance(s, str) and s.startswith(".") for s in format.suffixes):
        raise PluginError(f"format '{name}' has suffixes {format.suffixes!r}, expected a tuple such as ('.pt', '.pth').")
    for method in ("open", "build", "sample"):
        for parameter in inspect.signature(getattr(format, method)).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise PluginError(
                    f"{type(format).__name__}.{method} takes {str(parameter)!r}, expected named options: spell each one out with "
                    "its default, so that they can be listed and checked."
                )


def _two_claim(name: str, first: PluginRecord, second: PluginRecord) -> str:
    return f'the format name "{name}" comes from both {first.owner} and {second.owner}; pip uninstall one of them.'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or "no reason given"


_registry: Registry | None = None


def registry() -> Registry:
    """Return the registry of this process; the first call scans the installed distributions."""
    global _registry
    if _registry is None:
        _registry = Registry()
    return _registry


def rescan() -> Registry:
    """Forget all plugins and look again, after an installation or a change of INRBRIDGE_PLUGINS."""
    global _registry
    _registry = None
    return registry()


def get_format(name: str) -> Format:
    """Return the installed format of this name; only its plugin is imported.

    Raises:
        UnknownFormat: nobody brings it (the text has the pip line where one is known).
        PluginError: its plugin failed to load, or two claim the name.
    """
    return registry().get(name)


def all_formats() -> list[Format]:
    """Return every format that loads, sorted by name."""
    return registry().all()


def register(format: Format) -> None:
    """Add a format for this session, in a notebook or a script: `inrbridge.register(MyFormat())`.

    Raises:
        PluginError: it is no usable `Format`, or its name is taken.
    """
    registry().register(format)
