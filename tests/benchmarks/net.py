"""Time of INR-Net-4 as a ratio to its CNN twin: b 48, n 1024, the paper's widths; forward, and a whole training step.

The twin has the same widths, strides, normalizations and head, and kernels of 3x3: as many taps as a kernel of the net has
neighbours (10, 10 and 6); it is channels-last on a GPU. `network` starts from values; `fields` evaluates 48 SIRENs (5 x 256)
first, on the net's points and on the twin's pixels. A step is forward, backward and AdamW. On a GPU each is also replayed as a
CUDA graph.

    python tests/benchmarks/net.py --cases network --rounds 15
    python tests/benchmarks/net.py --device cuda --dtypes float32 bfloat16
    python tests/benchmarks/net.py --cases "network step" --profile 20
"""

from collections.abc import Callable

import torch
from measuring import arguments, contest, recorded, wanted
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from inrbridge import Box, build_field, stack
from inrbridge.models import build_model
from inrbridge.nn import Sampled
from inrbridge.sampling import get_sampler

BOX, FIELDS, SIDE, CLASSES, WIDTHS, HEAD = Box.centered(2), 48, 32, 10, (32, 64), 64
KINDS = ("lattice", "sobol")
LAYOUT = {"cpu": torch.contiguous_format, "cuda": torch.channels_last}


class Block(nn.Module):
    """The residual block of the twin."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norms[1](self.second(self.norms[0](self.first(x)).relu()))).relu()


def twin() -> nn.Module:
    """The CNN that INR-Net-4 is on pixels."""
    first, second = WIDTHS
    return nn.Sequential(
        nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
        nn.Conv2d(first, second, 3, 2, 1, bias=False), nn.BatchNorm2d(second), nn.ReLU(), Block(second),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, HEAD), nn.ReLU(), nn.Linear(HEAD, CLASSES),
    )  # fmt: skip


def forward(net: nn.Module, read: Callable[[], object]) -> Callable[[], Tensor]:
    """Logits of what `read` returns, without a graph."""
    net = net.eval()

    @torch.no_grad()
    def run():
        return net(read())

    return run


def step(net: nn.Module, read: Callable[[], object], dtype: torch.dtype) -> Callable[[], None]:
    """A training step."""
    net, device = net.train(), next(net.parameters()).device
    labels = torch.arange(FIELDS, device=device) % CLASSES
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True, **({"capturable": True} if on_gpu else {}))

    def run():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = cross_entropy(net(read()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def graphed(run: Callable) -> Callable:
    """The run as a CUDA graph, captured when it is first asked for."""
    graph = None

    def replay():
        nonlocal graph
        if graph is None:
            graph = recorded(run)
        graph()

    return replay


def readers(kind: str, what: str, device: str) -> dict[str, Callable[[], object]]:
    """What the net and its twin start from: given values, or fields that are evaluated."""
    draw = torch.Generator().manual_seed(0)
    points = get_sampler(kind)(BOX, SIDE**2, draw).to(device)
    pixels = get_sampler("grid")(BOX, (SIDE, SIDE)).to(device)
    if what == "network":
        values = torch.randn(SIDE**2, FIELDS, 3, generator=draw).to(device).transpose(0, 1)
        image = torch.randn(FIELDS, 3, SIDE, SIDE, generator=draw).to(device, memory_format=LAYOUT[device])
        return {"net": lambda: Sampled(points, values), "twin": lambda: image}
    fields = [build_field("siren", BOX, 3, width=256, layers=5, generator=draw).to(device) for _ in range(FIELDS)]
    together = stack([field.requires_grad_(False) for field in fields])

    def evaluated(x):
        with torch.no_grad():  # frozen: nobody fits them here
            return together(x.points, check=False)

    def pictures():
        return evaluated(pixels).unflatten(1, (SIDE, SIDE)).movedim(-1, 1).contiguous(memory_format=LAYOUT[device])

    return {"net": lambda: Sampled(points, evaluated(points)), "twin": pictures}


def runs(kind: str, what: str, which: str, dtype: torch.dtype, device: str) -> dict[str, Callable]:
    torch.manual_seed(0)  # of torch's own layers
    nets = {"net": build_model("inr-net-4", domain=BOX, in_channels=3, classes=CLASSES, widths=WIDTHS, head=HEAD),
            "twin": twin().to(memory_format=LAYOUT[device])}  # fmt: skip
    read = readers(kind, what, device)
    if which == "step":
        return {name: step(net.to(device), read[name], dtype) for name, net in nets.items()}
    cast = {name: torch.autocast(device, dtype, enabled=dtype != torch.float32)(forward(net.to(device), read[name]))
            for name, net in nets.items()}  # fmt: skip
    return cast


def profile(run: Callable, rows: int, device: str) -> None:
    """Print where the time goes."""
    for _ in range(3):
        run()
    with torch.profiler.profile() as found:
        for _ in range(5):
            run()
    column = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    print(found.key_averages().table(sort_by=column, row_limit=rows, max_name_column_width=60))


def main():
    args = arguments(__doc__, dtypes=(["float32"], "of the arithmetic (bfloat16: by autocast)"),
                     profile=(0, "rows of a table of where the time goes, instead of the contest"))  # fmt: skip
    for name in args.dtypes:
        dtype, suffix = getattr(torch, name), "" if name == "float32" else f" {name}"
        for what in ("network", "fields"):
            for which in ("forward", "step"):
                for kind in KINDS:
                    case = f"{what} {which} {kind}{suffix}"
                    if not wanted(case, args):
                        continue
                    found = runs(kind, what, which, dtype, args.device)
                    if args.profile:
                        for label, run in found.items():
                            print(case, label)
                            profile(run, args.profile, args.device)
                        continue
                    contest(case, found, "twin", args)
                    if args.device != "cpu":
                        contest(f"{case} graph", {label: graphed(run) for label, run in found.items()}, "twin", args)


if __name__ == "__main__":
    main()
