"""How the benchmarks measure: every candidate once a round, ratios inside a round, medians over the rounds, JSON lines.

from measuring import arguments, contest

args = arguments(__doc__)
contest("S1 forward", {"ours": run_ours, "conv2d": run_conv}, anchor="conv2d", args=args)
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch

WARM_UP = 2


def arguments(description: str | None, **options) -> argparse.Namespace:
    """Parse what all benchmarks take, and let a GPU use tf32 for both sides.

    options: further ones, name=(default, help); a list or tuple takes many values.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", nargs="*", default=[], help="only cases whose name holds one of these words")
    for name, (default, help) in options.items():
        many = isinstance(default, list | tuple)
        kind = type(default[0] if many else default)
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=help, nargs="+" if many else None, type=kind)
    args = parser.parse_args()
    _keep_memory()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    return args


def _keep_memory() -> None:
    """Let the C library keep freed memory, unless the caller has set it: else a call's time is also that of the fresh pages that
    it happens to be given, up to as much again, and falls on one candidate or another."""
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: numbers of up to 32 MiB, the most it takes, come from the heap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and go back to it


def wanted(case: str, args: argparse.Namespace) -> bool:
    """Say whether a case was asked for."""
    return not args.cases or any(word in case for word in args.cases)


def contest(case: str, candidates: Mapping[str, Callable[[], object]], anchor: str, args: argparse.Namespace, **facts) -> dict:
    """Time candidates against the one named `anchor` and print a line for each other one; return name -> ratio.

    A candidate that fails prints its error and leaves the others alone; `facts` are printed with every line.
    """
    alive = {}
    for name, run in candidates.items():
        try:
            for _ in range(WARM_UP):
                run()
            alive[name] = run
        except Exception as error:  # a benchmark goes on
            print(f"{case}: {name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if anchor not in alive:
        return {}
    repeats = {name: _repeats(run, args.device) for name, run in alive.items()}
    rounds = [{name: _timed(run, args.device, repeats[name]) for name, run in alive.items()} for _ in range(args.rounds)]
    ratios = {}
    for name in alive:
        if name == anchor and len(alive) > 1:
            continue
        ratios[name] = statistics.median(times[name] / times[anchor] for times in rounds)
        ours, theirs = (1e3 * statistics.median(times[which] for times in rounds) for which in (name, anchor))
        device = args.device if args.device == "cpu" else torch.cuda.get_device_name()
        report(args, case=f"{case} {name}" if len(alive) > 2 else case, device=device, threads=args.threads,
               ours_ms=_short(ours), anchor=anchor, anchor_ms=_short(theirs), ratio=round(ratios[name], 3), **facts)  # fmt: skip
    return ratios


def report(args: argparse.Namespace, **line) -> None:
    """Print one line of results."""
    if args.json:
        print(json.dumps(line), flush=True)
        return
    rest = " ".join(f"{key}={value}" for key, value in line.items() if key not in ("case", "device", "threads"))
    print(f"{line['case']:<44} {rest}", flush=True)


def passes(apply: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor, *learned: torch.Tensor) -> dict[str, Callable]:
    """Forward without gradients, and forward with the gradients of the input and of what is learned."""
    leaf = values.detach().requires_grad_()
    with torch.no_grad():
        weight = torch.randn_like(apply(values))

    def forward():
        with torch.no_grad():
            return apply(values)

    def both():
        return torch.autograd.grad(apply(leaf), [leaf, *learned], weight)

    return {"forward": forward, "forward+backward": both}


def recorded(run: Callable[[], object]) -> Callable[[], None]:
    """The run as a CUDA graph: what the GPU does, without what the host does."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a graph cannot hold first calls, which compile and choose kernels
        for _ in range(4):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _short(milliseconds: float) -> float:
    return float(f"{milliseconds:.4g}")


def _repeats(run: Callable[[], object], device: str, least: float = 0.005) -> int:
    """How often a quick run is repeated, so that the clock's own step does not matter."""
    return max(1, min(100, int(least / max(_timed(run, device, 1), 1e-9))))


def _timed(run: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds of one run, after one that counts for nothing: caches and free memory are else those of the candidate before."""
    run()
    if device != "cpu":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            run()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop) / 1e3 / repeats
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats
