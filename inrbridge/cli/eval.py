"""Measure a trained model on a store, under one discretization or several.

Without a store, the one it was trained on is measured, on its evaluation split.

examples:
  inrbridge eval runs/digits
  inrbridge eval runs/digits other-store --split test --sampler lattice sobol --n 256 1024 4096
"""

import json

from inrbridge.cli.arguments import add_model_options, count
from inrbridge.cli.tables import print_table


def add_arguments(parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a trained model")
    parser.add_argument("store", metavar="STORE", nargs="?", help="folder of a store")
    parser.add_argument("--split", metavar="NAME", help='split to measure on; "" takes every item')
    parser.add_argument("--format", metavar="NAME", action="append", help="only fields of this format; may be repeated")
    parser.add_argument("--sampler", metavar="NAME", nargs="+", default=[None], help="where to evaluate the fields")
    parser.add_argument("--n", metavar="N", type=count, nargs="+", default=[None], help="number of points")
    parser.add_argument("--targets", metavar="PATH", help="of a dense net: fields or labels at points, by name")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with confusion matrices")


def run(args) -> None:
    from inrbridge.training.distributed import is_main, processes
    from inrbridge.training.evaluating import evaluate, open_dataset
    from inrbridge.training.model_folder import load_model

    model = load_model(args.run, trusted=args.trust)
    store, split = choose_data(args, model.card.training.get("data", {}))
    dataset = open_dataset(store, model.card, split, args.format)
    with processes(args.device):  # one group of processes for all measurements
        common = {"seed": args.seed, "batch_size": args.batch_size, "device": args.device, "targets": args.targets}
        results = [evaluate(model, dataset, sampler=sampler, n=n, **common) for sampler in args.sampler for n in args.n]
    if not is_main():
        return
    if args.json:
        print(json.dumps({"model": args.run, "store": store, "split": split, "results": results}, indent=2))
        return
    score = next((name for name in ("miou", "accuracy", "energy", "mse") if name in results[0]), "loss")
    formats = list(results[0].get(f"{score}_by_format", ()))
    print(f"{args.run} on {store}, split {split or 'all'}, {results[0]['fields']} fields")
    rows = []
    for result in results:
        shares = [f"{result[f'{score}_by_format'][name]:.4g}" for name in formats]
        rows.append([result["sampler"], result["n"], result["seed"], f"{result[score]:.4g}", *shares, f"{result['seconds']:.2f}"])
    print_table(["sampler", "n", "seed", score, *formats, "seconds"], rows)


def choose_data(args, trained: dict) -> tuple[str, str | None]:
    """Return the store and its split: those asked for, else those of the training configuration."""
    from inrbridge.errors import ConfigError

    store = args.store or trained.get("store")
    if not store:
        raise ConfigError("Got no store, and the model was not trained on one; name it: inrbridge eval RUN STORE")
    if args.split is not None:
        return store, args.split or None
    return store, trained.get("eval_split") or None if store == trained.get("store") else None
