"""Apply a trained model to field files of any format, and to images.

A file that cannot be opened is reported and the others go on; the exit code is then 1. A dense net gives fields: with -o each
becomes a file that opens like any other, without the run.

examples:
  inrbridge predict runs/digits a.safetensors b.pth
  inrbridge predict runs/digits fields/* --tol 0.1 -o predictions --json
"""

import json
import sys
from pathlib import Path

from inrbridge.cli.arguments import add_model_options, count, positive
from inrbridge.cli.tables import print_table


def add_arguments(parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a trained model")
    parser.add_argument("files", metavar="FILE", nargs="+", help="field files, or folders of them")
    parser.add_argument("-o", "--out", metavar="DIR", help="write predictions.json here, and the fields that a dense net gives")
    parser.add_argument("--format", metavar="NAME", help="open the files with this format")
    parser.add_argument("--sampler", metavar="NAME", help="where to evaluate the fields")
    parser.add_argument("--n", metavar="N", type=count, help="number of points")
    parser.add_argument("--tol", metavar="TOL", type=positive, help="double the points until the outputs move less than this")
    parser.add_argument("--max-n", metavar="N", type=count, help="points to stop at under --tol; 16 times as many if absent")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with all probabilities")


def run(args) -> int:
    from inrbridge.errors import ConfigError
    from inrbridge.training import load_model, predict
    from inrbridge.writing import written_whole

    model = load_model(args.run, trusted=args.trust)
    is_dense = model.card.task == "dense"
    if is_dense and not args.out:
        raise ConfigError(f"Got no folder for the fields that {args.run} gives, expected one: -o DIR")
    out = Path(args.out) / "predictions.json" if args.out else None
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)  # asked now: work that cannot be kept is not begun
    answers = predict(
        model, args.files, format=args.format, sampler=args.sampler, n=args.n, seed=args.seed,
        batch_size=args.batch_size, device=args.device, keep_going=True, tol=args.tol, max_n=args.max_n,
        out=args.out if is_dense else None,
    )  # fmt: skip
    failed = [answer for answer in answers if "error" in answer]
    for answer in failed:
        print(f"inrbridge predict: {answer['error']}", file=sys.stderr)
    restless = sum(not answer.get("settled", True) for answer in answers)
    if restless:
        print(
            f"inrbridge predict: the outputs of {restless} of {len(answers)} fields still moved by more than {args.tol} at the "
            "last look; raise --max-n or --tol.",
            file=sys.stderr,
        )
    text = json.dumps(answers, indent=2)
    if args.json:
        print(text)
    else:
        show([answer for answer in answers if "error" not in answer])
    if out is not None:  # after they were shown: a full disk costs the file alone
        with written_whole(out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {out}", file=sys.stderr)
    return int(bool(failed))


def show(answers: list[dict]) -> None:
    """Print one line for each file."""
    if not answers:
        return
    if "output" in answers[0]:
        print_table(["file", "output", "is"], [[a["path"], a["output"], _on_the_whole(a)] for a in answers])
        return
    is_class = any("label" in answer for answer in answers)
    head = ["file", "label", "probability"] if is_class else ["file", "value"]
    rows = [
        [a["path"], a["label"], f"{a['probabilities'][a['label']]:.3f}"] if is_class else [a["path"], a["value"]] for a in answers
    ]
    if "settled" in answers[0]:
        head += ["points", "moved", "settled"]
        rows = [
            [*row, a["points"], f"{a['moved']:.3g}", "yes" if a["settled"] else "no"]
            for row, a in zip(rows, answers, strict=True)
        ]
    print_table(head, rows)


def _on_the_whole(answer: dict) -> str:
    """Say what a field is on the whole: its classes, the largest first, or the means of its channels."""
    if "shares" in answer:
        shares = sorted(answer["shares"].items(), key=lambda pair: -pair[1])
        return ", ".join(f"{name} {share:.1%}" for name, share in shares if share >= 0.001)
    return ", ".join(f"{name} {mean:.4g}" for name, mean in answer["means"].items())
