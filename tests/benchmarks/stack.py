"""Time of a stack of fields as a ratio to loops over them: large SIRENs, each format alone, and mixed minibatches.

`sirens` are 5 x 256 at 1024 points, against the best loop over the fields (torch's quickest linear layer and a sine in place) and
against the bound: the matrix products of these shapes, by the quicker of torch's two libraries, and the compiled sine of as many
numbers in cache, nothing else. `small`, `default` and `mixed` are fresh fields on the square, with and without the gradients of
all parameters, against `torch.stack([field(x) for field in fields])`; `error` is the largest difference between the two, relative
to the largest value.

    python tests/benchmarks/stack.py --threads 1 --rounds 5 --cases sirens mixed
    python tests/benchmarks/stack.py --device cuda --json
"""

import sys
import time
import traceback

import torch
from measuring import arguments, contest, recorded, wanted
from torch.nn import functional

from inrbridge import Box, Product, Sphere, build_field, sampling, stack
from inrbridge.compiled import sine

SQUARE = Box.centered(2)
SMALL = {
    "siren": {"width": 32, "layers": 2},
    "fourier": {"width": 32, "layers": 2, "features": 16},
    "ngp": {"levels": 4, "log2_table": 10, "width": 16},
    "plenoxels": {"resolution": 32},
    "nerf": {"width": 32, "layers": 2},
}
WIDTH, LAYERS, OMEGA, POINTS = 256, 5, 30.0, 1024


def fresh(format, count, domain=SQUARE, channels=1, device="cpu", dtype=None, **options):
    """Fields of a format with weights of their own."""
    draw = torch.Generator().manual_seed(0)
    fields = [build_field(format, domain, channels, generator=draw, **options) for _ in range(count)]
    return [field.to(device=device, dtype=dtype) for field in fields]


def difference(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float(f"{float((found - expected).abs().max() / expected.abs().max()):.1e}")


def trained(fields):
    return [value for field in fields for value in field.parameters()]


def stacked(together):
    """The stacked parameters, as leaves that ask for gradients."""
    states = {}
    for group in together.groups:
        known = {name for name, value in group.module.named_parameters()}
        for name, value in group.states.items():
            if name in known:
                states[id(group), name] = group.states[name] = value.detach().requires_grad_()
    return list(states.values())


def pair(fields, x, gradients):
    """The stack and the plain loop, as functions without arguments."""
    together = stack(fields, trainable=gradients)
    if not gradients:

        def ours():
            return together(x, check=False)

        @torch.no_grad()
        def loop():
            return torch.stack([field(x) for field in fields])

        return ours, loop
    leaves, parameters = stacked(together), trained(fields)
    cotangent = torch.ones(len(fields), len(x), fields[0].channels, device=x.device, dtype=x.dtype)

    def ours():
        values = together(x, check=False)
        torch.autograd.grad(values, leaves, cotangent)
        return values

    def loop():
        values = torch.stack([field(x) for field in fields])
        torch.autograd.grad(values, parameters, cotangent)
        return values

    return ours, loop


def ways(ours, args):
    """Ours, and on a GPU ours as a graph, where that can be recorded."""
    found = {"ours": ours}
    if args.device != "cpu":
        try:
            found["graph"] = recorded(ours)
        except Exception as error:  # it waits for the host somewhere
            print(f"cannot be recorded: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr, flush=True)
    return found


def compare(case, fields, x, args, gradients=False, **facts):
    ours, loop = pair(fields, x, gradients)
    facts |= {"fields": len(fields), "points": len(x), "error": difference(ours(), loop())}
    contest(f"{case} n {len(x)}{' gradients' if gradients else ''}", {**ways(ours, args), "loop": loop}, "loop", args, **facts)


def best_loop(fields, x, multiply, gradients):
    """One field after the other, by the layers that `multiply` makes and a sine in place where no gradient needs its argument."""
    rows = [[(layer.weight.detach(), layer.bias.detach()) for layer in field.layers] for field in fields]
    cotangent = torch.ones(len(fields), len(x), fields[0].channels, device=x.device, dtype=x.dtype)
    leaves = [value.requires_grad_(gradients) for row in rows for pair in row for value in pair]

    def run():
        values = []
        for row in rows:
            y = x
            for i, (weight, bias) in enumerate(row):
                y = multiply(y, weight, bias)
                if i < len(row) - 1:
                    y = torch.sin(OMEGA * y) if gradients else y.mul_(OMEGA).sin_()
            values.append(y)
        if gradients:
            torch.autograd.grad(torch.stack(values), leaves, cotangent)
        return torch.stack(values)

    return run if gradients else torch.no_grad()(run)


def bound(fields, multiply, gradients):
    """The matrix products and the sines of the fields, each operand in cache as it comes."""
    weights = [[layer.weight.detach() for layer in field.layers] for field in fields]
    values = {size: torch.randn(POINTS, size) for size in {s for w in weights[0] for s in w.shape}}

    @torch.no_grad()
    def run():
        for row in weights:
            for i, weight in enumerate(row):
                left, right = values[weight.shape[1]], values[weight.shape[0]]
                multiply(left, weight, None)
                if gradients:
                    right.mT @ left
                    if i:
                        right @ weight
                if i < len(row) - 1:
                    sine.sine(right, OMEGA, slopes=gradients)

    return run


def quicker(candidates):
    """The name of the quickest of a few ways, each tried twice after a first call."""
    took = {}
    for name, run in candidates.items():
        run()
        started = time.perf_counter()
        run(), run()
        took[name] = time.perf_counter() - started
    return min(took, key=took.get)


def one_dnn(x, weight, bias):
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def sirens(args):
    """48 SIRENs of the size that papers fit."""
    kinds = [torch.float32] if args.device == "cpu" else [torch.float32, torch.bfloat16]
    for dtype in kinds:
        fields = fresh("siren", args.fields, channels=3, width=WIDTH, layers=LAYERS, device=args.device, dtype=dtype)
        x = sampling.sobol(SQUARE, POINTS).points.to(args.device)
        facts = {"fields": len(fields), "points": POINTS, "dtype": str(dtype)[6:]}
        numbers = sum(layer.weight.numel() for layer in fields[0].layers)
        for gradients in (False, True):
            case = f"sirens {LAYERS}x{WIDTH} {facts['dtype']}{' gradients' if gradients else ''}"
            facts["gflop"] = round(2e-9 * numbers * POINTS * len(fields) * (3 if gradients else 1), 2)
            ours, modules = pair(fields, x, gradients)
            if args.device != "cpu":
                error = difference(ours(), modules())
                contest(case, {**ways(ours, args), "loop": modules}, "loop", args, error=error, **facts)
                continue
            libraries = {"MKL": functional.linear} if gradients else {"MKL": functional.linear, "oneDNN": one_dnn}
            loops = {f"loop of {name}": best_loop(fields, x, multiply, gradients) for name, multiply in libraries.items()}
            bounds = {f"bound by {name}": bound(fields, multiply, gradients) for name, multiply in libraries.items()}
            error = difference(ours(), modules())
            for anchors in (loops, bounds):
                name = quicker({**anchors, "loop of modules": modules} if anchors is loops else anchors)
                run = modules if name == "loop of modules" else anchors[name]
                contest(case, {"ours": ours, name: run}, name, args, error=error, **facts)


def alone(args):
    """Each format, small and of its own default size."""
    for size, options in (("small", SMALL), ("default", {format: {} for format in SMALL})):
        for format, choice in options.items():
            for n in args.points:
                for gradients in (False, True):
                    if wanted(f"{size} {format}", args):
                        fields = fresh(format, args.batch if size == "small" else args.batch // 4, device=args.device, **choice)
                        x = sampling.sobol(SQUARE, n).points.to(args.device)
                        compare(f"{size} {format}", fields, x, args, gradients)


def mixed(args):
    """A minibatch of five formats, shuffled."""
    parts = [fresh(format, args.batch, device=args.device, **choice) for format, choice in SMALL.items()]
    fields = [parts[i % len(parts)][i] for i in range(args.batch)]
    for n in args.points:
        for gradients in (False, True):
            compare("mixed", fields, sampling.sobol(SQUARE, n).points.to(args.device), args, gradients)


def radiance(args):
    """The formats of radiance, seen in all directions: colours and density."""
    domain = Product(Box.centered(3), Sphere())
    x = sampling.sobol(domain, args.points[0]).points.to(args.device)
    for format in ("ngp", "plenoxels", "nerf"):
        compare(f"radiance {format}", fresh(format, 4, domain, 4, device=args.device), x, args)


def main():
    args = arguments(
        __doc__, fields=(48, "large SIRENs"), batch=(64, "small fields"), points=([256, 1024, 4096], "of the small fields")
    )
    for run, words in ((sirens, ["sirens"]), (mixed, ["mixed"]), (alone, ["small", "default"]), (radiance, ["radiance"])):
        if not args.cases or any(word in asked or asked in word for word in words for asked in args.cases):
            try:
                run(args)
            except Exception:  # the other cases go on
                print(f"{words[0]} failed: {traceback.format_exc(limit=3)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
