"""Time of our local layers and of peers' as ratios to torch's own convolution on a grid, in one run.

Shape S1: 48 fields, 1024 points, 32 -> 64 channels; T = 9 or 25 points under the kernel, in the mean; the anchor has a kernel of
3x3 or 5x5. Neighbours and stencils exist before. torch-harmonics (grids on the sphere, `DiscreteContinuousConvS2`) and
neuraloperator (scattered points in the plane, `DiscreteContinuousConv2d`) are measured where they are installed; "K" counts
their functions of the offset. PointConv (Wu et al. 2019) and KPConv (Thomas et al. 2019) are the formulas of their papers for a
batch on shared points, with T nearest neighbours: neither is a package.

    pip install neuraloperator torch-harmonics -c constraint.txt   # a constraint keeps them from replacing torch
    python tests/benchmarks/peers.py --cases "T=9 forward"
"""

import importlib
import sys
from collections.abc import Callable

import torch
from measuring import arguments, contest, passes
from torch import Tensor, nn

from inrbridge import Box, sampling
from inrbridge.discretization import Discretization
from inrbridge.nn import BasisConv, Conv, MLPConv, Sampled

B, N, C, O = 48, 1024, 32, 64  # noqa: E741
SIDE = 32
STEP = 2 / SIDE
MIDDLE = 16  # functions of PointConv's network
KERNEL_POINTS = 15  # of KPConv


def ours(points: Discretization, size: int) -> dict[str, nn.Module]:
    """Our layers whose kernels are size x size points wide."""
    draw = torch.Generator().manual_seed(0)
    half = STEP * size / 2
    return {
        "Conv": Conv(C, O, 3, spacing=STEP, generator=draw),
        "BasisConv K=9": BasisConv(C, O, 3, spacing=STEP * size / 3, generator=draw),
        "MLPConv 64 bins": MLPConv(C, O, half_width=half, bins=64, generator=draw),
        "MLPConv exact": MLPConv(C, O, half_width=half, bins=None, generator=draw),
    }


def reach(distances: Tensor, count: int) -> float:
    """Return the distance within which a point has `count` others and itself, in the mean over rows of distances."""
    return float(distances.flatten().kthvalue(count * len(distances)).values) * (1 + 1e-6)


class PointConv(nn.Module):
    """out_i = W vec(sum_j M(x_j - x_i) s_j f_j^T): M a network to `MIDDLE` numbers, s the inverse density of the points."""

    def __init__(self, points: Tensor, count: int):
        super().__init__()
        self.near = torch.cdist(points, points).topk(count, largest=False).indices  # (n, t)
        self.offsets = points[self.near] - points[:, None]
        self.scale = torch.cdist(points, points).square().mul(-1 / (2 * STEP**2)).exp().mean(1, keepdim=True).reciprocal()
        self.network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, MIDDLE), nn.ReLU())
        self.last = nn.Linear(MIDDLE * C, O)

    def forward(self, values: Tensor) -> Tensor:  # (b, n, c)
        weights = self.network(self.offsets)  # (n, t, m)
        around = (values * self.scale)[:, self.near]  # (b, n, t, c)
        return self.last(torch.matmul(weights.mT, around).flatten(2))


class KPConv(nn.Module):
    """out_i = sum_k W_k sum_j max(0, 1 - |x_j - x_i - y_k| / sigma) f_j for kernel points y_k in the neighbourhood."""

    def __init__(self, points: Tensor, count: int):
        super().__init__()
        distances, self.near = torch.cdist(points, points).topk(count, largest=False)
        radius = float(distances[:, -1].mean())
        turns = torch.arange(KERNEL_POINTS - 1) * (2 * torch.pi / (KERNEL_POINTS - 1))
        places = torch.cat([torch.zeros(1, 2), 0.66 * radius * torch.stack([turns.cos(), turns.sin()], -1)])
        offsets = points[self.near] - points[:, None]
        influence = (1 - (offsets[:, None] - places[:, None]).norm(dim=-1) / (0.5 * radius)).clamp(min=0)
        self.influence = influence  # (n, k, t)
        self.weight = nn.Parameter(torch.randn(KERNEL_POINTS, C, O) / (KERNEL_POINTS * C) ** 0.5)

    def forward(self, values: Tensor) -> Tensor:  # (b, n, c)
        weighted = torch.matmul(self.influence, values[:, self.near])  # (b, n, k, c)
        return torch.matmul(weighted.permute(2, 0, 1, 3).flatten(1, 2), self.weight).sum(0).unflatten(0, values.shape[:2])


def harmonics(count: int, functions: tuple[int, int], optimized: bool) -> nn.Module:
    """torch-harmonics on an equiangular grid of the sphere, its cap as wide as `count` points ask for in the mean."""
    library = importlib.import_module("torch_harmonics")
    shape = (SIDE, N // SIDE)
    up = torch.linspace(0, torch.pi, shape[0])
    round_ = torch.arange(shape[1]) * (2 * torch.pi / shape[1])
    up, round_ = (x.flatten() for x in torch.meshgrid(up, round_, indexing="ij"))
    places = torch.stack([up.sin() * round_.cos(), up.sin() * round_.sin(), up.cos()], -1).double()
    angles = (places @ places.T).clamp(-1, 1).acos()
    cutoff = reach(angles, count)
    return library.DiscreteContinuousConvS2(C, O, shape, shape, functions, theta_cutoff=cutoff, optimized_kernel=optimized)


def operators(points: Tensor, count: int, functions: tuple[int, int]) -> nn.Module:
    """neuraloperator on scattered points of the unit square."""
    for module, name in (
        ("torch_harmonics.quadrature", "_precompute_grid"),
        ("torch_harmonics.filter_basis", "MorletFilterBasis"),
    ):
        module = importlib.import_module(module)
        if not hasattr(module, name):  # newer torch-harmonics have it no more; what is measured does not use it
            setattr(module, name, None)
    library = importlib.import_module("neuralop.layers.discrete_continuous_convolution")
    unit = ((points + 1) / 2).mT.contiguous()
    cutoff = reach(torch.cdist(unit.mT, unit.mT), count)
    weights = torch.full((len(points),), 1 / len(points))
    return library.DiscreteContinuousConv2d(C, O, unit, unit, list(functions), quadrature_weights=weights, radius_cutoff=cutoff)


def peers(points: Tensor, count: int) -> dict[str, tuple[Callable[[], nn.Module], str]]:
    """name -> (how it is built, layout of its values)."""
    return {
        "PointConv": (lambda: PointConv(points, count), "points"),
        "KPConv": (lambda: KPConv(points, count), "points"),
        "torch-harmonics K=9": (lambda: harmonics(count, (3, 4), True), "sphere"),
        "torch-harmonics K=9 torch": (lambda: harmonics(count, (3, 4), False), "sphere"),
        "neuraloperator K=5": (lambda: operators(points, count, (2, 4)), "channels"),
        "neuraloperator K=9": (lambda: operators(points, count, (3, 4)), "channels"),
    }


def main():
    args = arguments(__doc__, only=("", "only candidates whose name holds this word, and the anchor"))
    torch.manual_seed(0)
    sampled = sampling.sobol(Box.centered(2), N, torch.Generator().manual_seed(0)).to(torch.float32)
    inputs = {
        "points": torch.randn(B, N, C), "channels": torch.randn(B, C, N), "sphere": torch.randn(B, C, SIDE, N // SIDE),
        "ours": torch.randn(N, B, C).transpose(0, 1),
    }  # fmt: skip
    inputs = {name: value.to(args.device) for name, value in inputs.items()}
    points = sampled.to(args.device)
    for size in (3, 5):
        count, candidates = size * size, {}
        conv = nn.Conv2d(C, O, size, padding=size // 2).to(args.device)
        candidates["conv2d"] = passes(conv, inputs["sphere"].reshape(B, C, SIDE, SIDE), *conv.parameters())
        for name, layer in ours(sampled, size).items():
            layer = layer.to(args.device)
            run = passes(lambda v, layer=layer: layer(Sampled(points, v)).values, inputs["ours"], *layer.parameters())
            candidates[f"ours {name}"] = run
        for name, (build, layout) in peers(sampled.points, count).items():
            if args.only and args.only not in name:
                continue
            try:
                layer = build().to(args.device)
                candidates[name] = passes(layer, inputs[layout], *layer.parameters())
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
            except Exception as error:  # a peer that fails leaves the others alone
                print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
        for kind in ("forward", "forward+backward"):
            case = f"T={count} {kind}"
            if not args.cases or case in args.cases:
                contest(case, {name: runs[kind] for name, runs in candidates.items()}, anchor="conv2d", args=args)


if __name__ == "__main__":
    main()
