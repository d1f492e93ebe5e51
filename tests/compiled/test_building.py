"""Kernels are built on first use, kept, and never in the way where they cannot be built."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from inrbridge.compiled import building

ANSWER = 'extern "C" int answer() { return 42; }\n'
needs_compiler = pytest.mark.skipif(building._compiler() is None, reason="no C++ compiler")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of kernels and an empty cache, for this test alone."""
    monkeypatch.setenv("INRBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INRBRIDGE_COMPILED", raising=False)
    for cached in (building._cache, building._compiler):
        cached.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for cached in (building._cache, building._compiler):
        cached.cache_clear()


def library(folder, name="kernel"):
    return building.Sources(folder).library(name)


def built(folder):
    return sorted(path.name for path in (folder / "cache" / "compiled").glob("*.so"))


@needs_compiler
def test_a_kernel_is_built_once(folder):
    (folder / "kernel.cpp").write_text(ANSWER)
    assert library(folder).answer() == 42
    (only,) = built(folder)
    stamp = (folder / "cache" / "compiled" / only).stat().st_mtime_ns
    assert library(folder).answer() == 42
    assert (folder / "cache" / "compiled" / only).stat().st_mtime_ns == stamp
    assert not list((folder / "cache" / "compiled").glob("tmp*"))


@needs_compiler
def test_another_source_or_header_is_another_library(folder):
    (folder / "kernel.cpp").write_text('#include "number.h"\nextern "C" int answer() { return NUMBER; }\n')
    for count, number in enumerate((1, 2), 1):
        (folder / "number.h").write_text(f"#define NUMBER {number}\n")
        assert library(folder).answer() == number
        assert len(built(folder)) == count


@needs_compiler
def test_a_process_keeps_the_sources_that_it_started_with(folder):
    (folder / "kernel.cpp").write_text(ANSWER)
    sources = building.Sources(folder)
    (folder / "kernel.cpp").write_text(ANSWER.replace("42", "43"))  # an upgrade, before the first use
    assert sources.library("kernel").answer() == 42 and sources.library("kernel") is sources.library("kernel")
    assert library(folder).answer() == 43


@needs_compiler
def test_files_of_other_packages_may_include_the_headers_here(folder):
    (folder / "kernel.cpp").write_text('#include "gemm.h"\nextern "C" int answer() { return int(inrbridge::round_up(41, 2)); }\n')
    assert library(folder).answer() == 42


@needs_compiler
def test_threads_are_those_of_torch(folder):
    (folder / "kernel.cpp").write_text(
        '#include <omp.h>\nextern "C" int count() {\n  int n = 0;\n#pragma omp parallel\n#pragma omp single\n'
        "  n = omp_get_num_threads();\n  return n;\n}\n"
    )
    count, before = library(folder).count, torch.get_num_threads()
    if b"libgomp" not in subprocess.run(["ldd", str(next((folder / "cache").rglob("*.so")))], capture_output=True).stdout:
        pytest.skip("a compiler without libgomp")
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert count() == threads
    finally:
        torch.set_num_threads(before)


@needs_compiler
def test_a_file_that_does_not_compile_is_said_once_and_not_in_the_way(folder, caplog):
    (folder / "kernel.cpp").write_text("this is not C++\n")
    assert (sources := building.Sources(folder)).library("kernel") is None and sources.library("kernel") is None
    assert len([record for record in caplog.records if "kernel" in record.getMessage()]) == 1
    assert not built(folder)


def test_no_compiler_is_no_error(folder, monkeypatch):
    (folder / "kernel.cpp").write_text(ANSWER)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    assert library(folder) is None
    assert building.describe().startswith("none")


def test_no_folder_is_no_error(folder):
    assert library(folder / "package.zip" / "compiled") is None


def test_kernels_can_be_switched_off(folder, monkeypatch):
    (folder / "kernel.cpp").write_text(ANSWER)
    monkeypatch.setenv("INRBRIDGE_COMPILED", "0")
    assert library(folder) is None
    assert not (folder / "cache").exists()


@needs_compiler
def test_a_cache_that_cannot_be_written_is_replaced(folder, monkeypatch):
    (folder / "kernel.cpp").write_text(ANSWER)
    (folder / "file").write_text("no folder")
    monkeypatch.setenv("INRBRIDGE_CACHE", str(folder / "file"))
    assert library(folder).answer() == 42


@needs_compiler
def test_processes_that_start_together_build_one_library(folder):
    (folder / "kernel.cpp").write_text(ANSWER)
    code = (
        "import sys; from pathlib import Path; from inrbridge.compiled.building import Sources; "
        "print(Sources(Path(sys.argv[1])).library('kernel').answer())"
    )

    def start(_):
        return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=os.environ)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(start, range(3)))
    assert [run.stdout.strip() for run in found] == ["42"] * 3, [run.stderr for run in found]
    assert len(built(folder)) == 1


@needs_compiler
@pytest.mark.parametrize("source", sorted(path.stem for path in building._FOLDER.glob("*.cpp")))
def test_every_kernel_of_the_package_builds_without_a_warning(source, tmp_path):
    flags = [*building._flags(), "-fopenmp", "-Wall", "-Wextra", "-Werror"]
    path = building._FOLDER / f"{source}.cpp"
    run = subprocess.run(
        [building._compiler(), *flags, "-c", str(path), "-o", str(tmp_path / "out.o")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert isinstance(building.library(source), ctypes.CDLL) or os.environ.get("INRBRIDGE_COMPILED") == "0"
