"""Floor 1: from a C++ file of this folder to a loaded library: built on first use, kept for the next process.

Nothing is compiled at install, and nothing is asked of a machine: without a compiler, or with INRBRIDGE_COMPILED=0, `library`
returns None and the caller takes its plain torch path. The files know nothing of Python or torch (plain C functions on
pointers), so that a build takes seconds and serves every version of both.

A format's package may bring files of its own:

    _sources = Sources(Path(__file__).parent)  # when the package is imported
    found = _sources.library("levels")         # levels.cpp beside this file, which may include the headers here
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent
_PATIENCE = 300  # seconds that a compiler may take
_log = logging.getLogger(__name__)


class Sources:
    """The C++ files and headers of a folder, read at once: a running process keeps those that its Python calls, whatever an
    upgrade writes there before they are built."""

    def __init__(self, folder: Path):
        files = sorted(folder.iterdir()) if folder.is_dir() else []  # none in a package that is imported from an archive
        files = [path for path in files if path.suffix in (".cpp", ".h")]
        self._texts = {path.name: path.read_text(encoding="utf-8") for path in files}
        self._loaded: dict[str, ctypes.CDLL | None] = {}

    def library(self, name: str) -> ctypes.CDLL | None:
        """Return the functions of NAME.cpp, built if this machine has not built them yet; None where that cannot be done.

        INRBRIDGE_COMPILED=0 switches compiled kernels off, CXX names the compiler, INRBRIDGE_CACHE the folder of what was
        built.
        """
        if os.environ.get("INRBRIDGE_COMPILED") == "0":
            return None
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._texts)
        return self._loaded[name]


def describe() -> str:
    """Say in a few words whether kernels can be compiled here, for reports."""
    if os.environ.get("INRBRIDGE_COMPILED") == "0":
        return "switched off by INRBRIDGE_COMPILED=0"
    compiler = _compiler()
    return f"by {compiler}, kept in {_cache()}" if compiler else "none, for want of a C++ compiler; plain torch does the same"


def _load(name: str, texts: Mapping[str, str]) -> ctypes.CDLL | None:
    compiler = _compiler()
    if compiler is None or not texts:
        _log.info("no C++ compiler, or no sources: the plain torch path does the work of %s", name)
        return None
    try:
        return ctypes.CDLL(str(_built(name, texts, compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        _log.warning("could not build the compiled kernels %s, the plain torch path does their work: %s", name, reason)
        return None


@functools.cache
def _compiler() -> str | None:
    found = (shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name)
    return next((path for path in found if path), None)


def _built(name: str, texts: Mapping[str, str], compiler: str) -> Path:
    """The library of NAME.cpp; its name tells everything that it depends on."""
    needed = {f"{name}.cpp": texts[f"{name}.cpp"]}
    needed |= {file: text for some in (_CORE._texts, texts) for file, text in some.items() if file.endswith(".h")}
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout
    facts = [version, _processor(), *_flags(), *map(str, _openmp()), *needed.values()]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:20]
    folder = _cache()
    built = folder / f"{name}-{digest}.so"
    with _alone(folder / f"{name}.lock"):  # many processes of one run start together
        if not built.exists():
            _build(f"{name}.cpp", needed, built, compiler)
    return built


def _build(source: str, needed: Mapping[str, str], built: Path, compiler: str) -> None:
    _log.info("compiling %s once for this machine", source)
    with tempfile.TemporaryDirectory(dir=built.parent) as work:
        for file, text in needed.items():
            Path(work, file).write_text(text, encoding="utf-8")
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=_PATIENCE, cwd=work)
        try:
            run([compiler, *_flags(), "-fopenmp", "-c", source, "-o", "parts.o"])
            run([compiler, "-shared", "parts.o", *map(str, _openmp() or ["-fopenmp"]), "-o", "out.so"])
        except subprocess.CalledProcessError:  # a compiler without OpenMP: one thread, or the same error again
            run([compiler, *_flags(), "-shared", source, "-o", "out.so"])
        os.replace(Path(work, "out.so"), built)


def _flags() -> list[str]:
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    return ["-std=c++17", "-O3", native, "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]


@functools.cache
def _openmp() -> list[Path]:
    """The OpenMP library that torch has loaded: with another one, two pools of threads would fight for the cores."""
    shipped = Path(torch.__file__).parent / "lib"
    return sorted(path for pattern in ("libgomp*.so*", "libiomp5.so", "libomp.so") for path in shipped.glob(pattern))[:1]


@functools.cache
def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines of several kinds."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}))
    return f"{platform.machine()} {platform.processor()}"


@functools.cache
def _cache() -> Path:
    """The folder of what was built: the user's own, or, where that cannot be written, one of this process."""
    base = os.environ.get("INRBRIDGE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "inrbridge")
    folder = Path(base, "compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    own = Path(tempfile.mkdtemp(prefix="inrbridge-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process in at a time, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


_CORE = Sources(_FOLDER)
library = _CORE.library
