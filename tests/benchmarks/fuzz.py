"""Damage files of every format by the thousand and judge what becomes of them; exit code 1 when anything leaks.

    python tests/benchmarks/fuzz.py --cases 200                      # the examples of all formats, in all containers
    INRBRIDGE_DATA=... python tests/benchmarks/fuzz.py --cases 200   # and the sample files
    python tests/benchmarks/fuzz.py --file model.pt --format siren --seed 3 --index 17   # one case again, its traceback in full

Every file is damaged and opened in a process of its own under a limit of memory, each case under a limit of time. One JSON line
per file tells the counts of outcomes (field, refused, LEAK, HANG, MEMORY), the slowest case and the peak of memory; one per
kind of leak tells how to repeat it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzing import OUTCOMES, judge, limit_memory

from inrbridge import identify, open_field, plugins
from inrbridge.errors import InrBridgeError
from inrbridge.testing.damage import Original
from inrbridge.testing.rewriting import in_every_container

SMALL, LARGEST = 2**20, 5 * 2**20  # bytes: larger files get fewer cases, the largest none
NO_FIELDS = (".golden.npz", ".json", ".yml", ".md", ".png", ".jpg", ".gif")
MEMORY_MIB, SECONDS, SILENCE = 1024, 10.0, 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100, help="damaged variants of each file")
    parser.add_argument("--format", help="only files of this format")
    parser.add_argument("--file", type=Path, help="only this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, help="with --file: this variant alone, kept for a look")
    parser.add_argument("--start", type=int, help=argparse.SUPPRESS)  # set for the processes that do the work
    args = parser.parse_args()
    if args.start is not None:
        return work(args)
    if args.index is not None:
        return repeat(args)
    found, totals, failed = False, {}, False
    folder = Path(tempfile.mkdtemp(prefix="inrbridge-fuzz-"))  # kept: leaks are repeated on the files in it
    for format, file in files(args, folder):
        found = True
        counts = fuzz(format, file, args.cases if file.stat().st_size <= SMALL else max(args.cases // 4, 1), args.seed)
        totals.setdefault(format, Counter()).update(counts)
        failed |= any(counts[kind] for kind in ("LEAK", "HANG", "MEMORY"))
    for format, counts in sorted(totals.items()):
        print(json.dumps({"format": format, "file": "all", **counts}), flush=True)
    if not found:
        print("no file to damage: check --format and --file", file=sys.stderr)
    return int(failed or not found)


def files(args: argparse.Namespace, folder: Path):
    """Yield (format, file): the named file, or the examples in every container and the sample files."""
    if args.file:
        yield args.format or identify(args.file), args.file
        return
    for format in plugins.all_formats():
        if args.format in (None, format.name):
            yield from examples(format, folder)
    shared = os.environ.get("INRBRIDGE_DATA")
    for file in sorted(Path(shared, "checkpoints").rglob("*")) if shared else ():
        if file.is_file() and file.stat().st_size <= LARGEST and not file.name.endswith(NO_FIELDS):
            try:
                named = identify(file)
            except InrBridgeError:
                continue
            if args.format in (None, named):
                yield named, file


def examples(format, folder: Path):
    """The format's example file, and its tensors in those containers in which the format opens them."""
    place = folder / format.name
    place.mkdir()
    example = format.example(place)
    yield format.name, example
    if example.is_dir():
        return
    for container, file in in_every_container(example, place / "rewritten"):
        try:
            open_field(file, format=format.name)
        except InrBridgeError as error:
            print(json.dumps({"format": format.name, "container": container, "passed over": str(error)[:100]}), flush=True)
        else:
            yield format.name, file


def fuzz(format: str, file: Path, cases: int, seed: int) -> Counter:
    """Judge the variants of one file in processes of their own, a new one where the last has died; print what came out."""
    counts, leaks, slowest, peak, start = Counter(dict.fromkeys(OUTCOMES, 0)), {}, (0.0, -1, ""), 0.0, 0
    while start < cases:
        command = [sys.executable, __file__, "--file", str(file), "--format", format, "--seed", str(seed), "--cases", str(cases),
                   "--start", str(start)]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=SILENCE + cases * SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        for line in output.splitlines():
            case = json.loads(line)
            start = case["index"] + 1
            counts[case["kind"]] += 1
            slowest = max(slowest, (case["seconds"], case["index"], case["what"]))
            peak = max(peak, case["peak_mib"])
            if case["kind"] in ("LEAK", "HANG", "MEMORY"):
                leaks.setdefault((case["kind"], case["reason"].partition("|")[2] or case["reason"]), []).append(case)
        if process.returncode and start < cases:
            kind = "HANG" if process.returncode == -9 else "LEAK"
            counts[kind] += 1
            lost = {"kind": kind, "index": start, "what": "", "reason": f"the process died with code {process.returncode}"}
            leaks.setdefault((kind, lost["reason"]), []).append(lost)
            start += 1
    told = {"format": format, "file": file.name, "cases": cases, **counts, "slowest_s": round(slowest[0], 2),
            "slowest": slowest[1], "peak_mib": round(peak)}  # fmt: skip
    print(json.dumps(told), flush=True)
    for (kind, _), found in leaks.items():
        first = found[0]
        again = f"--file {file} --format {format} --seed {seed} --index {first['index']}"
        print(json.dumps({kind: len(found), "what": first["what"], "reason": first["reason"], "again": again}), flush=True)
    return counts


def work(args: argparse.Namespace) -> int:
    """Judge the variants from --start on; one JSON line for each."""
    original = Original(args.file)
    _ = original.tree
    judge(args.file, args.format)  # imports and caches are not part of the measure
    limit_memory(MEMORY_MIB)
    before = _peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.start, args.cases):
            what, path = original.damage(Path(folder), args.seed, index)
            outcome = judge(path, args.format, SECONDS)
            peak = _peak_mib() - before
            print(json.dumps({"index": index, "what": what, "kind": outcome.kind, "reason": outcome.reason,
                              "seconds": outcome.seconds, "peak_mib": peak}), flush=True)  # fmt: skip
    return 0


def repeat(args: argparse.Namespace) -> int:
    """Write one variant, keep it, and let its error come through."""
    what, path = Original(args.file).damage(Path(tempfile.mkdtemp()), args.seed, args.index)
    print(f"{path}: {what}")
    format = args.format or identify(args.file)
    print(judge(path, format))
    open_field(path, format=format)
    return 0


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
