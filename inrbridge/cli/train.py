"""Train an INR-Net as a TOML configuration says; the run folder becomes the trained model.

Several processes: torchrun --nproc-per-node 2 -m inrbridge train CONFIG

examples:
  inrbridge train config.toml
  inrbridge train config.toml --set optimizer.lr=3e-4 --set run.out=runs/slow --resume
"""

import json
import shlex

from inrbridge.cli.tables import print_facts


def add_arguments(parser) -> None:
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="TOML file, see: inrbridge config init")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a key, e.g. points.n=256")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in run.out, if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args) -> None:
    from inrbridge.training import train
    from inrbridge.training.distributed import is_main

    summary = train(args.config, sets=args.set, resume=args.resume, progress=True, command=command_line(args))
    if not is_main():
        return
    facts = {"folder": str(summary.folder), "steps": summary.steps, "seconds": round(summary.seconds, 2), "loss": summary.loss}
    if args.json:
        print(json.dumps({**facts, "metrics": summary.metrics}, indent=2))
        return
    facts["training loss"] = f"{facts.pop('loss'):.4g}"
    print_facts([*facts.items(), *figures(summary.metrics)])
    verb = "generate" if getattr(summary.model, "kind", "") == "generation" else "eval"
    print(f"\nnext: inrbridge {verb} {shlex.quote(str(summary.folder))}" + (" -o made" if verb == "generate" else ""))


def command_line(args) -> str:
    """Return the command as the user may repeat it."""
    settings = [word for setting in args.set for word in ("--set", setting)]
    return shlex.join(["inrbridge", "train", *([args.config] if args.config else []), *settings])


def figures(metrics: dict) -> list[tuple[str, str]]:
    """Return the numbers of an evaluation, those of single formats on lines of their own."""
    lines = []
    for name, value in metrics.items():
        if isinstance(value, float):
            lines.append((name, f"{value:.4g}"))
        elif isinstance(value, dict):
            lines += [(f"  {name.partition('_by_')[0]} on {part}", f"{share:.4g}") for part, share in value.items()]
    return lines
