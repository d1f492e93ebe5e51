"""Time of batches of fields that read tables, 48 of them at 1024 points: grids, hash grids and plenoxels.

Anchors: batched `grid_sample` for grids; for rows of tables the plain formula, a gather for all fields level by level, weighted
and summed, with the corners given. "side by side" is how `inrbridge.stack` stores tables to be read, "one after the other" how a
dataset's minibatch or an optimizer has them; both find the corners themselves. "own" is a set of points for each field. Whole
fields are compared with the loop over them, and lookups at once with the formula followed by the batched networks.

    python tests/benchmarks/tables.py --threads 1 --cases grid hash-14
"""

import functools

import torch
from measuring import arguments, contest, wanted
from torch.nn.functional import grid_sample

from inrbridge import Box, GridField, batched, build_field, sampling
from inrbridge.stacking import FieldStack

B, N = 48, 1024


def rand(*shape, device, dtype=torch.float32):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return (values - 0.5).to(device, dtype)


def beside(tables):
    return batched.side_by_side(tables.unbind(0))


def points(dim, device, own=False):
    x = sampling.sobol(Box.centered(dim), N, torch.Generator().manual_seed(0)).points.float().to(device)
    return x if not own else torch.stack([x.roll(i, 0) for i in range(B)])


def grids(args, case, shape, channels, interpolation, mode):
    """Batched `grid_sample` reads (b, c, *shape), its last coordinate first."""
    dim, device = len(shape), args.device
    samples = rand(B, *shape, channels, device=device)
    field = GridField(samples[0].cpu(), Box.centered(dim), interpolation=interpolation).to(device)
    pixels = samples.movedim(-1, 1).contiguous()
    together, short = beside(samples), beside(samples.bfloat16())
    for own in (False, True):
        x = points(dim, device, own)
        turned = x.flip(-1).expand(B, N, dim).reshape(B, *[1] * (dim - 1), N, dim)
        contest(case + (" own" if own else ""), {
            "grid_sample": lambda g=turned: grid_sample(pixels, g, mode=mode, padding_mode="border", align_corners=False),
            "side by side": lambda x=x: field.evaluate_stack({"samples": together}, x),
            "one after the other": lambda x=x: field.evaluate_stack({"samples": samples}, x),
            "bfloat16": lambda x=x: field.evaluate_stack({"samples": short}, x),
        }, anchor="grid_sample", args=args)  # fmt: skip


def formula(tables, rows, weights):
    """Rows (levels, n, k) of tables (b, r, f), gathered for all fields, level by level."""
    found = []
    for row, weight in zip(rows, weights, strict=True):
        values = tables.gather(1, row.reshape(1, -1, 1).expand(len(tables), -1, tables.shape[2]))
        found.append((values.unflatten(1, row.shape) * weight.unsqueeze(-1)).sum(2))
    return torch.cat(found, -1)


def lookups(args, case, tables, find, x, **more):
    """Rows and weights that `find` gives for points, read from tables (b, r, f)."""
    rows, weights = find(x)
    known, together = rows.long(), beside(tables)
    contest(case, {
        "formula": lambda: formula(tables, known, weights),
        "side by side": lambda: batched.table_rows(together, *find(x)),
        "one after the other": lambda: batched.table_rows(tables, *find(x)),
        "found": lambda: batched.table_rows(together, rows, weights),
        **more,
    }, anchor="formula", args=args)  # fmt: skip


def gradients(args, case, tables, find, x):
    """Gradients of tables and weights, as fitting and losses on derivatives ask for them."""
    rows, weights = find(x)
    rows, leaf, learned = rows.long(), weights.detach().requires_grad_(), tables.detach().requires_grad_()
    cotangent = torch.randn_like(formula(tables, rows, weights))
    together = beside(tables)

    def run(function, table, *leaves):
        return lambda: torch.autograd.grad(function(table, rows, leaf), leaves, cotangent)

    for name, leaves in (("tables and weights", (learned, leaf)), ("weights", (leaf,))):
        learns = learned in leaves if len(leaves) > 1 else False
        table = learned if learns else tables
        candidates = {"formula": run(formula, table, *leaves), "ours": run(batched.table_rows, table, *leaves)}
        candidates |= {} if learns else {"side by side": run(batched.table_rows, together, *leaves)}
        contest(f"{case} gradients of {name}", candidates, anchor="formula", args=args)


def hashes(args, case, log2, dim=2):
    b = B
    field = build_field("ngp", Box.centered(dim), 3, levels=16, features=2, log2_table=log2, base=16, finest=2048, width=64,
                        layers=2, generator=torch.Generator().manual_seed(0)).requires_grad_(False).to(args.device)  # fmt: skip
    states = {name: rand(b, *value.shape, device=args.device) for name, value in field.named_parameters()}
    x, tables = points(dim, args.device), states["table"]

    def find(x):
        return field.grid.cells((x + 1) / 2)

    if wanted(f"{case} rows", args):
        lookups(args, f"{case} rows", tables, find, x)
    if log2 <= 16 and wanted(f"{case} gradients", args):
        gradients(args, case, tables, find, x)
    if wanted(f"{case} field", args):
        stacked = FieldStack.from_states(field, {**states, "table": beside(tables)})
        apart = FieldStack.from_states(field, states)
        single = [{name: value[i : i + 1] for name, value in states.items()} for i in range(b)]
        rows, weights = find(x)
        rows = rows.long()

        def naive():
            layers = [states[f"base.{i}.weight"] for i in range(len(field.base))]
            out = formula(tables, rows, weights)
            for i, weight in enumerate(layers):
                out = torch.bmm(torch.relu(out) if i else out, weight.mT)
            return out

        contest(f"{case} field", {
            "loop": lambda: torch.cat([field.evaluate_stack(own, x) for own in single]),
            "formula and bmm": naive,
            "side by side": lambda: stacked(x, check=False),
            "one after the other": lambda: apart(x, check=False),
        }, anchor="loop", args=args)  # fmt: skip
        own = points(dim, args.device, own=True)
        contest(f"{case} field own", {
            "loop": lambda: torch.cat([field.evaluate_stack(state, p) for state, p in zip(single, own, strict=True)]),
            "side by side": lambda: stacked(own, check=False),
            "one after the other": lambda: apart(own, check=False),
        }, anchor="loop", args=args)  # fmt: skip


def plenoxels(args, case, resolution, channels):
    domain = Box.centered(len(resolution))
    field = build_field("plenoxels", domain, channels, resolution=list(resolution)).to(args.device)
    tables = rand(B, *field.table.shape, device=args.device)
    x = points(len(resolution), args.device)

    def find(x):
        rows, weights = field.cells.find((x + 1) / 2, {}, B)
        return rows.unsqueeze(0), weights.unsqueeze(0)

    stacked = FieldStack.from_states(field, {"table": beside(tables)})
    lookups(args, case, tables.flatten(1, -2), find, x, field=lambda: stacked(x, check=False))


CASES = {
    "grid linear 64x64x16": functools.partial(grids, shape=(64, 64), channels=16, interpolation="linear", mode="bilinear"),
    "grid cubic 64x64x16": functools.partial(grids, shape=(64, 64), channels=16, interpolation="cubic", mode="bicubic"),
    "grid linear 64x64x3": functools.partial(grids, shape=(64, 64), channels=3, interpolation="linear", mode="bilinear"),
    "grid cubic 64x64x3": functools.partial(grids, shape=(64, 64), channels=3, interpolation="cubic", mode="bicubic"),
    "grid linear 32x32x32x4": functools.partial(grids, shape=(32, 32, 32), channels=4, interpolation="linear", mode="bilinear"),
    "plenoxels 64x64x3": functools.partial(plenoxels, resolution=(64, 64), channels=3),
    "plenoxels 64x64x64x4": functools.partial(plenoxels, resolution=(64, 64, 64), channels=4),
    **{f"hash-{log2}": functools.partial(hashes, log2=log2) for log2 in (14, 16, 19)},
    "hash-14 3-D": functools.partial(hashes, log2=14, dim=3),
}


def main():
    args = arguments(__doc__)
    for case, run in CASES.items():
        if not args.cases or any(case in word or word in case for word in args.cases):
            with torch.no_grad() if not case.startswith("hash") else torch.enable_grad():
                run(args, case)


if __name__ == "__main__":
    main()
