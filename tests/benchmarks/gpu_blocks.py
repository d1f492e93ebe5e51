"""Try the blocks of the GPU's kernels of the local operator, depth-wise and not.

python gpu_blocks.py [--cases WORD ...] [--workers 12]

Every candidate is compiled and run once by a worker beside others, then timed alone as a recorded graph, and compared with
float64. The anchor is cuDNN, channels last. The first rate counts its products alone, the second those of the contraction too.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.gpu.launching import Blocks, patch_sizes
from inrbridge.gpu.patches import Patches
from inrbridge.ops.dispatch import using
from inrbridge.ops.gpu_local import CutStencil, GpuLocal
from inrbridge.ops.local import Placements, local_operator
from inrbridge.ops.sparse import SparseRows
from inrbridge.sampling import sobol
from inrbridge.stencils import Reconstruct, build_stencil, kernel_nodes

HELD = Blocks()
STREAMED = Blocks(hold=False, stages=2)
POINTS = Blocks(points=64, nodes=1, fields=1, hold=False, across=False)
HALF = [
    None,
    replace(HELD, stages=2),
    replace(HELD, warps=8),
    replace(HELD, fields=4, stages=2),
    replace(HELD, fields=4, warps=8, stages=2),
    replace(HELD, points=8, nodes=8),
    replace(HELD, across=False),
    replace(STREAMED, channels=32, fields=4),
    POINTS,
]
LARGE = [
    None,
    replace(STREAMED, channels=32, fields=4, outputs=128),
    replace(POINTS, outputs=128, channels=128, stages=2),
    replace(POINTS, outputs=128, warps=8, fields=2),
]
GRADIENT = [
    None,
    replace(HELD, stages=2),
    replace(HELD, warps=8),
    replace(HELD, points=32, warps=8),
    replace(HELD, points=64, nodes=2, fields=1),
]
COLLAPSED = [
    None,
    Blocks(fields=64, channels=16, warps=8),
    Blocks(fields=64, channels=32, warps=16, registers=128),
    Blocks(fields=32, channels=16, warps=4, registers=168),
    Blocks(fields=16, channels=16, warps=4, registers=128),
]


@dataclass(frozen=True)
class Case:
    """Fields, points along each axis, channels, nodes along each axis, dtype, what is computed."""

    name: str
    fields: int
    shape: tuple[int, ...]
    inputs: int
    outputs: int
    dtype: torch.dtype
    what: str
    blocks: list
    size: int = 3

    @property
    def groups(self) -> int:
        return self.inputs if self.size == 7 else 1

    @property
    def points(self) -> int:
        return math.prod(self.shape)

    @property
    def flops(self) -> float:
        return 2.0 * self.fields * self.points * self.inputs // self.groups * self.outputs * self.size ** len(self.shape)


def cases() -> list[Case]:
    bf16, f32 = torch.bfloat16, torch.float32
    big = (128, 128)
    paper = (("S1", 48, (32, 32), 32, 64), ("S2", 8, (64, 64), 64, 64), ("S3", 4, (32, 16, 16), 32, 32))
    return [
        Case("64", 48, big, 64, 64, bf16, "output", HALF),
        Case("64", 48, big, 64, 64, bf16, "values_gradient", HALF[:1]),
        Case("64", 48, big, 64, 64, bf16, "kernel_gradient", GRADIENT),
        Case("64", 48, big, 64, 64, f32, "output", [None]),
        Case("64", 48, big, 64, 64, f32, "values_gradient", [None]),
        Case("64", 48, big, 64, 64, f32, "kernel_gradient", [None]),
        Case("128", 48, big, 128, 128, bf16, "output", LARGE),
        Case("7x7 depth-wise", 48, big, 64, 64, bf16, "output", COLLAPSED, 7),
        Case("7x7 depth-wise", 48, big, 64, 64, bf16, "values_gradient", COLLAPSED[:1], 7),
        Case("7x7 depth-wise", 48, big, 64, 64, bf16, "kernel_gradient", COLLAPSED, 7),
        Case("7x7 depth-wise", 48, big, 64, 64, f32, "output", COLLAPSED[:2], 7),
        *(Case(*sizes, dtype, what, [None]) for sizes in paper for dtype in (bf16, f32)
          for what in ("output", "values_gradient", "kernel_gradient")),
    ]  # fmt: skip


MATRICES: dict[tuple, SparseRows] = {}  # made before the workers, who inherit them
CUT: dict[tuple, dict] = {}


def points_of(case: Case) -> Discretization:
    return sobol(Box.centered(len(case.shape)), case.points, torch.Generator().manual_seed(0), dtype=torch.float64)


def matrix_of(case: Case) -> SparseRows:
    key = (case.shape, case.size)
    if key not in MATRICES:
        steps = tuple(2 / n for n in case.shape)
        nodes = kernel_nodes((case.size,) * len(steps), steps)
        MATRICES[key] = build_stencil(Reconstruct(nodes, steps), points_of(case)).matrix
    return MATRICES[key]


def cut_key(case: Case, blocks: Blocks | None) -> tuple:
    back = case.what == "values_gradient"
    size = blocks.points if blocks else 16
    if blocks is None and case.groups == 1 and case.what != "kernel_gradient":
        size = patch_sizes(case.outputs if back else case.inputs)[0]
    return case.shape, case.size, size, back


def cut(key: tuple) -> dict:
    """The patches of one cut as arrays, in a worker."""
    shape, size, points, back = key
    whole = CutStencil(MATRICES[shape, size], math.prod(shape), size ** len(shape))
    patches = whole.patches(torch.zeros(()), back, points)
    return {name: getattr(patches, name).numpy() for name in ("points", "halo", "weights")}


def operator(case: Case, blocks: Blocks | None, like: torch.Tensor) -> GpuLocal:
    """The operator with the patches that were cut for all blocks."""
    stencil = CutStencil(matrix_of(case), case.points, case.size ** len(case.shape))
    key = cut_key(case, blocks)
    stencil._cut[key[2:]] = Patches(*(torch.from_numpy(CUT[key][name]) for name in ("points", "halo", "weights")))
    return GpuLocal(stencil, case.groups, None, blocks)


def operands(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator(device="cuda").manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, device="cuda").to(case.dtype)

    kernel = draw(case.size ** len(case.shape), case.inputs // case.groups, case.outputs) / 8
    values, grad = (draw(case.points, case.fields, channels) for channels in (case.inputs, case.outputs))
    return {"output": (values, kernel), "values_gradient": (kernel, grad), "kernel_gradient": (values, grad)}[case.what]


def compiles(job: tuple[int, int]) -> tuple[tuple[int, int], str]:
    """Run one candidate once in a worker of its own GPU context, which leaves the binary in Triton's cache."""
    case = cases()[job[0]]
    try:
        allow_tf32()
        arguments = operands(case)
        getattr(operator(case, case.blocks[job[1]], arguments[0]), case.what)(*arguments)
        torch.cuda.synchronize()
        return job, ""
    except Exception as error:
        return job, f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:90] if str(error).strip() else ''}"


def allow_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True


def timed(run: Callable[[], object], rounds: int = 7) -> float:
    """Milliseconds of a run inside a recorded graph, the median."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    return timed_eagerly(graph.replay, rounds)


def timed_eagerly(run: Callable[[], object], rounds: int = 7) -> float:
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(4):
            run()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 4)
    return statistics.median(times)


def anchor(case: Case) -> Callable[[], object]:
    """cuDNN's convolution on a grid of as many points, or one of its gradients."""
    d = len(case.shape)
    layout = torch.channels_last if d == 2 else torch.channels_last_3d
    x, g = (torch.randn(case.fields, c, *case.shape, device="cuda", dtype=case.dtype).to(memory_format=layout)
            for c in (case.inputs, case.outputs))  # fmt: skip
    w = torch.randn(case.outputs, case.inputs // case.groups, *(case.size,) * d, device="cuda", dtype=case.dtype)
    w, pads, ones = w.to(memory_format=layout), [case.size // 2] * d, [1] * d
    if case.what == "output":
        return lambda: torch.ops.aten.convolution(x, w, None, ones, pads, ones, False, [0] * d, case.groups)
    mask = [case.what == "values_gradient", case.what == "kernel_gradient", False]
    return lambda: torch.ops.aten.convolution_backward(g, x, w, None, ones, pads, ones, False, [0] * d, case.groups, mask)


def truth(case: Case, arguments: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The same in float64 by a sparse product."""
    matrix, k, c = matrix_of(case), case.size ** len(case.shape), case.inputs
    kernel = arguments[1 if case.what == "output" else 0].double() if case.what != "kernel_gradient" else None
    few = 2 if case.what != "kernel_gradient" else case.fields  # fields that are compared
    rows = matrix.rows().cuda()
    stencil = torch.sparse_coo_tensor(
        torch.stack([rows, matrix.columns.cuda().long()]), matrix.weights.cuda().double(), (case.points * k, case.points)
    ).coalesce()
    if case.what == "values_gradient":
        flow = torch.einsum("mbgo,kcgo->mkbgc", arguments[1][:, :few].double().unflatten(2, (case.groups, -1)),
                            kernel.unflatten(2, (case.groups, -1))).reshape(case.points * k, few * c)  # fmt: skip
        return (stencil.t() @ flow).view(-1, few, c)
    total = 0
    for first in range(0, few, 2):
        nodes = (stencil @ arguments[0][:, first : first + 2].double().flatten(1)).view(case.points, k, 2, case.groups, -1)
        if case.what == "output":
            return torch.einsum("mkbgc,kcgo->mbgo", nodes, kernel.unflatten(2, (case.groups, -1))).flatten(2)
        grad = arguments[1][:, first : first + 2].double().unflatten(2, (case.groups, -1))
        total = total + torch.einsum("mkbgc,mbgo->kcgo", nodes, grad).flatten(2)
    return total


def measure(index: int, case: Case, failures: dict) -> None:
    arguments = operands(case)
    expected = truth(case, arguments)
    few = expected.shape[1] if case.what != "kernel_gradient" else None
    conv = anchor(case)
    theirs = timed(conv)
    kind = {torch.bfloat16: "bf16", torch.float32: "tf32"}[case.dtype]
    print(f"\n{case.name} {case.what} {kind}: cuDNN {theirs:.4f} ms, {case.flops / theirs / 1e9:.0f} TFLOP/s, "
          f"eager {timed_eagerly(conv):.4f}", flush=True)  # fmt: skip
    for number, blocks in enumerate(case.blocks):
        name = "default" if blocks is None else str(blocks)[7:-1]
        if (index, number) in failures:
            print(f"  -      {name}: {failures[index, number]}")
            continue
        try:
            made = operator(case, blocks, arguments[0])
            run = lambda made=made: getattr(made, case.what)(*arguments)  # noqa: E731
            out = run()
            again = run()
            got = (out[:, :few] if few else out).double()
            error = float((got - expected).norm() / expected.norm())
            same = torch.equal(out, again)
            ours = timed(run)
            patches = made.stencil._cut[cut_key(case, blocks)[2:]]
            contraction = (
                2.0 * patches.weights.numel() * case.fields * (case.outputs if case.what == "values_gradient" else case.inputs)
            )
            print(f"  {ours:.4f} ms = {ours / theirs:5.2f} x, {case.flops / ours / 1e9:4.0f} TFLOP/s of the convolution, "
                  f"{(case.flops + contraction) / ours / 1e9:4.0f} in all, error {error:.1e}{'' if same else ' NOT REPEATED'}, "
                  f"eager {timed_eagerly(run):.4f}, halo {tuple(patches.halo.shape)}: {name}", flush=True)  # fmt: skip
        except Exception as failure:
            print(f"  failed {name}: {type(failure).__name__}: {str(failure)[:200]}", flush=True)


def full_precision() -> None:
    """Products in float32 proper: the kernels' three products in tf32, and plain torch."""
    case = Case("64", 48, (128, 128), 64, 64, torch.float32, "output", [None])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    whole = local_operator(Placements(matrix_of(case), case.points, 9, points_of(case).points))
    for what in ("output", "values_gradient", "kernel_gradient"):
        case = replace(case, what=what)
        arguments = operands(case)
        theirs = timed_eagerly(anchor(case), 3)
        for path in ("gpu", "plain"):
            with using(path):
                ours = timed_eagerly(lambda arguments=arguments, what=what: getattr(whole, what)(*arguments), 3)
            print(f"float32 {what} {path}: {ours:.3f} ms, cuDNN {theirs:.3f} ms", flush=True)
    allow_tf32()


def ceilings() -> None:
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    big = torch.randn(1 << 30, device="cuda", dtype=torch.bfloat16)
    other = torch.empty_like(big)
    product, copy = timed(lambda: a @ a), timed(lambda: other.copy_(big))
    print(f"{torch.cuda.get_device_name()}: bf16 product {2 * 8192**3 / product / 1e9:.0f} TFLOP/s, "
          f"copy {2 * big.numel() * 2 / copy / 1e9:.2f} TB/s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=[], help="only cases whose name and computation hold one of these words")
    parser.add_argument("--workers", type=int, default=min(12, os.cpu_count() or 1))
    args = parser.parse_args()
    torch.set_num_threads(1)  # a pool of threads would not live on in the forked workers
    started = time.time()
    chosen = [i for i, case in enumerate(cases())
              if not args.cases or any(word in f"{case.name} {case.what} {case.dtype}" for word in args.cases)]  # fmt: skip
    jobs = [(i, j) for i in chosen for j in range(len(cases()[i].blocks))]
    for i in chosen:
        matrix_of(cases()[i])
    print(f"stencils {time.time() - started:.0f} s", flush=True)
    keys = sorted({cut_key(cases()[i], cases()[i].blocks[j]) for i, j in jobs}, key=lambda key: -key[1])
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        CUT.update(zip(keys, pool.map(cut, keys, chunksize=1), strict=True))
    print(f"patches {time.time() - started:.0f} s", flush=True)
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        failures = {job: error for job, error in pool.imap_unordered(compiles, jobs) if error}
    print(f"compiled {time.time() - started:.0f} s", flush=True)
    allow_tf32()
    with torch.no_grad():
        for step in (ceilings, *(lambda i=i: measure(i, cases()[i], failures) for i in chosen), full_precision):
            try:
                step()
            except Exception:
                traceback.print_exc()
    print(f"\nall {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
