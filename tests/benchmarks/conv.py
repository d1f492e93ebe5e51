"""Time of a convolution off the grid as a ratio to torch's own convolution of equal size on it, in the same run.

Shapes on the CPU: S1 b 48, n 1024, 32 -> 64; S2 b 8, n 4096, 64 -> 64; S3 3-D, b 4, n 8192 (8000 on the grid), 32 -> 32; D the
depth-wise kernel of 7x7 nodes, b 8, n 4096, 64 channels. On a GPU: G b 48, n 16384, 64 -> 64, and H, depth-wise. Other kernels
have 3 nodes an axis, "S1 5x5" and "S2 5x5" have 5; T is the mean number of neighbours under the kernel, as many as the anchor
has nodes (a network's too). Stencils exist before; the anchor is contiguous on the CPU and channels-last on a GPU. `growth` is
the time per point of more and more points, relative to that of the fewest.

    python tests/benchmarks/conv.py --cases "S1 forward" growth
    python tests/benchmarks/conv.py --cases S1 --layers network --paths compiled
    python tests/benchmarks/conv.py --device cuda --dtypes float32 bfloat16
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from measuring import arguments, contest, passes, report, wanted
from torch import nn

from inrbridge.discretization import Discretization
from inrbridge.domains import Box
from inrbridge.errors import ConfigError
from inrbridge.nn import BasisConv, Conv, MLPConv, Sampled
from inrbridge.nn.conv import LocalLayer
from inrbridge.ops.dispatch import using
from inrbridge.sampling import get_sampler


@dataclass(frozen=True)
class Shape:
    """Sizes of a convolution: d dimensions, b fields, n points, c -> o channels, `size` nodes along each axis."""

    d: int
    b: int
    n: int
    c: int
    o: int
    size: int = 3
    groups: int = 1

    @property
    def side(self) -> int:
        return round(self.n ** (1 / self.d))

    @property
    def step(self) -> float:
        return 2 / self.side

    def points(self, kind: str, device: str) -> Discretization:
        count = (self.side,) * self.d if kind == "grid" else self.n
        return get_sampler(kind)(Box.centered(self.d), count, torch.Generator().manual_seed(0)).to(device)


SHAPES = {
    "cpu": {"S1": Shape(2, 48, 1024, 32, 64), "S2": Shape(2, 8, 4096, 64, 64), "S3": Shape(3, 4, 8192, 32, 32),
            "S1 5x5": Shape(2, 48, 1024, 32, 64, 5), "S2 5x5": Shape(2, 8, 4096, 64, 64, 5),
            "D": Shape(2, 8, 4096, 64, 64, 7, 64)},
    "cuda": {"G": Shape(2, 48, 16384, 64, 64), "H": Shape(2, 48, 16384, 64, 64, 7, 64)},
}  # fmt: skip
GROWTH = {"cpu": (Shape(2, 4, 1, 64, 64), (1024, 4096, 16384, 65536, 262144)),
          "cuda": (Shape(2, 16, 1, 64, 64), (4096, 16384, 65536, 262144))}  # fmt: skip
PATHS = {"cpu": ("plain", "compiled"), "cuda": ("plain", "gpu")}


def reconstruct(shape: Shape) -> LocalLayer:
    return Conv(shape.c, shape.o, shape.size, spacing=shape.step, groups=shape.groups, dim=shape.d)


def quadrature(across: int) -> Callable[[Shape], LocalLayer]:
    """A kernel of 3 splines an axis whose support is `across` points wide."""

    def layer(shape: Shape) -> LocalLayer:
        return BasisConv(shape.c, shape.o, 3, spacing=shape.step * across / 3, groups=shape.groups, dim=shape.d)

    return layer


def network(bins: int | None) -> Callable[[Shape], LocalLayer]:
    """The kernel of a network with two hidden layers of 16, as many points under it as a discrete kernel has nodes."""

    def layer(shape: Shape) -> LocalLayer:
        return MLPConv(shape.c, shape.o, half_width=shape.step * shape.size / 2, bins=bins, hidden=(16, 16), dim=shape.d)

    return layer


CONVOLUTIONS = ("S1", "S2", "S3", "S1 5x5", "S2 5x5", "G")
# name -> (layer of a shape, kind of points, shapes)
LAYERS: dict[str, tuple[Callable[[Shape], LocalLayer], str, tuple[str, ...]]] = {
    "reconstruct sobol": (reconstruct, "sobol", ("S1", "S2", "S3", "D", "G", "H")),
    "reconstruct lattice": (reconstruct, "lattice", ("S1", "S2", "S3", "D", "G", "H")),
    "quadrature T=9": (quadrature(3), "sobol", ("S1", "S2", "G")),
    "quadrature T=25": (quadrature(5), "sobol", ("S1 5x5", "S2 5x5")),
    "quadrature T=27": (quadrature(3), "sobol", ("S3",)),
    "network in 64 bins sobol": (network(64), "sobol", CONVOLUTIONS),
    "network sobol": (network(None), "sobol", CONVOLUTIONS),
    "network lattice": (network(None), "lattice", CONVOLUTIONS),
}


def under(path: str, run: Callable) -> Callable:
    """A run, computed by one path."""

    def held(*given):
        with using(path):
            return run(*given)

    return held


def own(shape: Shape, device: str, dtype: torch.dtype, last: bool) -> dict[str, Callable]:
    """Torch's own convolution: its passes, contiguous or channels-last."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[shape.d - 1]
    layer = kind(shape.c, shape.o, shape.size, padding=shape.size // 2, groups=shape.groups).to(device, dtype)
    values = torch.randn(shape.b, shape.c, *(shape.side,) * shape.d, device=device, dtype=dtype)
    if last:
        layout = {2: torch.channels_last, 3: torch.channels_last_3d}[shape.d]
        layer, values = layer.to(memory_format=layout), values.to(memory_format=layout)
    return passes(layer, values, *layer.parameters())


def ours(shape: Shape, name: str, paths: tuple[str, ...], device: str, dtype: torch.dtype) -> Iterator[tuple[str, dict]]:
    """A layer by each of its paths: (name, passes); values lie points first, as every layer leaves them."""
    make, kind, _ = LAYERS[name]
    layer, points = make(shape).to(device, dtype), shape.points(kind, device)
    values = torch.randn(shape.n, shape.b, shape.c, device=device, dtype=dtype).transpose(0, 1)
    for path in paths:
        try:
            runs = under(path, passes)(lambda v: layer(Sampled(points, v)).values, values, *layer.parameters())
        except ConfigError as error:  # the path does not serve this layer here
            print(f"{name} {path} left out: {error}", file=sys.stderr, flush=True)
            continue
        yield f"{name} {path}", {kind: under(path, run) for kind, run in runs.items()}


def on_grid(shape: Shape, device: str, dtype: torch.dtype) -> dict[str, Callable]:
    layer, points = reconstruct(shape).to(device, dtype), shape.points("grid", device)
    values = torch.randn(shape.b, len(points), shape.c, device=device, dtype=dtype)
    return passes(lambda v: layer(Sampled(points, v)).values, values, *layer.parameters())


def compare(name: str, shape: Shape, dtype: torch.dtype, args) -> None:
    """All layers of one shape against torch's convolution, and the layer on its grid against it channels-last."""
    suffix = "" if dtype == torch.float32 else f" {str(dtype).removeprefix('torch.')}"
    cases = {kind: f"{name} {kind}{suffix}" for kind in ("forward", "forward+backward")}
    cases = {kind: case for kind, case in cases.items() if wanted(case, args)}
    if not cases:
        return
    gpu = args.device != "cpu"
    candidates = {"conv": own(shape, args.device, dtype, last=gpu)}
    for layer, (_, _, shapes) in LAYERS.items():
        if name in shapes and (not args.layers or any(word in layer for word in args.layers)):
            candidates |= ours(shape, layer, tuple(args.paths) or PATHS[args.device], args.device, dtype)
    grid = {"channels-last": own(shape, args.device, dtype, last=True), "grid": on_grid(shape, args.device, dtype)}
    for kind, case in cases.items():
        contest(case, {which: found[kind] for which, found in candidates.items()}, "conv", args)
        contest(f"{case} grid", {which: found[kind] for which, found in grid.items()}, "channels-last", args)


def growth(args) -> None:
    """The time per point of more and more points."""
    base, counts = GROWTH[args.device]
    path = PATHS[args.device][-1]
    for kind in ("forward", "forward+backward"):
        if not wanted(f"growth {kind}", args):
            continue
        runs = {}
        for n in counts:
            shape = Shape(base.d, base.b, n, base.c, base.o)
            runs[f"n={n}"] = dict(ours(shape, "reconstruct sobol", (path,), args.device, torch.float32)).popitem()[1][kind]
        for which, ratio in contest(f"growth {kind} {path}", runs, f"n={counts[0]}", args).items():
            n = int(which.removeprefix("n="))
            report(args, case=f"growth {kind} {path} per point {which}", device=args.device, threads=args.threads,
                   ratio=round(ratio * counts[0] / n, 3))  # fmt: skip


def main() -> None:
    args = arguments(__doc__, dtypes=(["float32"], "numbers to compute in"), paths=([""], "only these paths"),
                     layers=([""], "only layers whose name holds one of these words"))  # fmt: skip
    args.paths, args.layers = ([word for word in words if word] for words in (args.paths, args.layers))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for dtype in args.dtypes:
        for name, shape in SHAPES[args.device].items():
            compare(name, shape, getattr(torch, dtype), args)
    growth(args)


if __name__ == "__main__":
    main()
