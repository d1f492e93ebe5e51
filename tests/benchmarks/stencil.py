"""What stencils cost to build, against scipy's search for pairs among the same points (tree included), one line a case.

`pairs`: lists of all points within the radius at which a point has 25 neighbours, row after row, ascending; the anchor finds
each pair once, in no order. Then whole rules: stencils from points to points, of nodes read by moving least squares (9 in the
plane, 27 in space), of basis functions, and of bins; and what it costs to exchange inputs and outputs of the first. `growth`: the
time for each point of the largest set, divided by that of the smallest.

    python tests/benchmarks/stencil.py --json
    python tests/benchmarks/stencil.py --sizes 1024 16384 1048576 --samplers lattice --cases pairs
"""

import math
import statistics
import time

import numpy as np
import torch
from measuring import arguments, contest, report, wanted
from scipy.spatial import cKDTree

from inrbridge.domains import Box
from inrbridge.sampling import get_sampler
from inrbridge.stencils import Bins, BSpline, Polynomial, Quadrature, Reconstruct, build_stencil, kernel_nodes
from inrbridge.stencils.neighbours import PointSet

NEIGHBOURS = 25


def radius_of(n: int, d: int) -> float:
    """At which n points on [-1, 1]^d have 25 neighbours."""
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1)
    return (NEIGHBOURS * 2**d / (n * ball)) ** (1 / d)


def rules(d: int, n: int) -> dict:
    """One rule of each kind; boxes that hold 25 neighbours."""
    h, half = 2 * n ** (-1 / d), NEIGHBOURS ** (1 / d) * n ** (-1 / d)
    seeds = get_sampler("halton")(Box.centered(d), 64, torch.Generator().manual_seed(0), dtype=torch.float64).points * half
    return {
        "nodes": Reconstruct(kernel_nodes((3,) * d, (h,) * d), (h,) * d),
        "spline": Quadrature(BSpline((3,) * d, (2 * half / 3,) * d), (2 * half / 3,) * d),
        "polynomial": Quadrature(Polynomial((half,) * d, 3 if d == 2 else 2), (2 * half,) * d),
        "bins": Bins(tuple(map(tuple, seeds.tolist())), (half,) * d),
    }


def searched(points: np.ndarray, radius: float):
    """The anchor."""
    return cKDTree(points).query_pairs(radius, output_type="ndarray")


def built(rule, source):
    """A stencil of points that were never seen before."""
    source.cache.clear()
    return build_stencil(rule, source)


def main() -> None:
    args = arguments(__doc__, sizes=([2**10, 2**12, 2**14, 2**16, 2**18, 2**20], "numbers of points"),
                     dims=([2, 3], "dimensions"), samplers=(["sobol", "lattice", "grid", "uniform"], "of the points"),
                     whole=(2**16, "largest number of points for whole rules"))  # fmt: skip
    for d in args.dims:
        for sampler in args.samplers:
            spent: dict[str, list[float]] = {}
            for n in args.sizes:
                source = get_sampler(sampler)(Box.centered(d), n, torch.Generator().manual_seed(0))
                for part, times in measured(args, sampler, d, source).items():
                    spent.setdefault(part, []).append(times / len(source))
            for part, times in spent.items():
                if len(times) > 1:
                    report(args, case=f"growth {part} {sampler} {d}-D", device="cpu", threads=args.threads,
                           ratio=round(times[-1] / times[0], 3))  # fmt: skip


def measured(args, sampler: str, d: int, source) -> dict[str, float]:
    """Print the cases of one set of points; return the seconds of each."""
    points, radius = source.points.double().numpy(), radius_of(len(source), d)
    across = np.full(d, radius)
    candidates = {"pairs": lambda: PointSet(points).inside(points, -across, across, ball=True, ways=False)}
    if len(source) <= args.whole:
        own = rules(d, len(source))
        candidates |= {name: lambda rule=rule: built(rule, source) for name, rule in own.items()}
        nodes = build_stencil(own["nodes"], source)
        candidates["exchanged"] = lambda: nodes.matrix.exchanged(nodes.nodes, nodes.n_in)
    spent = {}
    for name, run in candidates.items():
        case = f"{name} {sampler} {d}-D n {len(source)}"
        if wanted(case, args):
            times: list[float] = []
            ours, anchor = timed(run, times), lambda: searched(points, radius)
            contest(case, {"ours": ours, "query_pairs": anchor}, "query_pairs", args)
            spent[name] = statistics.median(times)
    return spent


def timed(run, times: list[float]):
    """The same run, that notes its seconds."""

    def noted():
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)

    return noted


if __name__ == "__main__":
    main()
