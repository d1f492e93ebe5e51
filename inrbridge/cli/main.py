"""`inrbridge VERB ...`: find the verb's file, run it, turn errors into one sentence and an exit code.

Each verb is a module with `HELP` (one line), `add_arguments(parser)` and `run(args) -> int | None`.
Standard output carries results, standard error talk. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import importlib
import os
import sys
import warnings

from inrbridge.cli.arguments import Parser
from inrbridge.errors import InrBridgeError, SupportTooNarrow, did_you_mean

VERBS = {
    "demo": "classify handwritten digits stored in mixed formats, end to end",
    "formats": "list the formats that are installed",
    "info": "say what a file holds and which format opens it",
    "preview": "draw a field to a PNG file",
    "fit": "turn images, arrays or sounds into a store of fields",
    "pack": "collect field files into a store",
    "train": "train an INR-Net from a TOML configuration",
    "eval": "measure a trained model on a store",
    "predict": "apply a trained model to field files",
    "distill": "fit a field of another format to any field",
    "generate": "let a trained model make new fields",
    "convert": "turn a pretrained network on pixels into an INR-Net",
    "models": "list the architectures and their options",
    "config": "write, show or check a training configuration",
    "check": "run the conformance laws on an installed format",
    "new-plugin": "write the skeleton of a format plugin",
    "doctor": "report versions, devices and the state of every plugin",
}
GO_ON = {  # after an interruption
    "fit": ", and the same command goes on from there",
    "pack": ", and the same command goes on from there",
    "train": ", and --resume goes on from the last checkpoint",
}


def verb_module(verb: str):
    """Import the file of a verb: `new-plugin` lives in `cli/new_plugin.py`."""
    return importlib.import_module(f"inrbridge.cli.{verb.replace('-', '_')}")


def build_parser(verb: str | None) -> Parser:
    """Build the parser; only the file of the verb in use is imported."""
    from inrbridge import __version__

    parser = Parser(
        prog="inrbridge",
        description="Learn on implicit neural representations of any kind.",
        epilog="examples:\n  inrbridge demo --quick\n  inrbridge info FILE",
    )
    parser.add_argument("--version", action="version", version=f"inrbridge {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        if name != verb:
            verbs.add_parser(name, help=summary, add_help=False)
            continue
        module = verb_module(name)
        about, examples = split_examples(module.__doc__ or "")
        sub = verbs.add_parser(name, help=summary, description=about, epilog=examples)
        module.add_arguments(sub)
        sub.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return parser


def split_examples(text: str) -> tuple[str, str]:
    """Part a verb's docstring: its last paragraph, where that shows command lines, comes after the options.

    >>> split_examples("Draw a field.\\n\\nexamples:\\n  inrbridge preview f.pt")
    ('Draw a field.', 'examples:\\n  inrbridge preview f.pt')
    """
    about, _, last = text.strip().rpartition("\n\n")
    if about and any(line.strip().removeprefix("$ ").startswith("inrbridge ") for line in last.splitlines()):
        return about, last
    return text.strip(), ""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    debug, argv = "--debug" in argv, [word for word in argv if word != "--debug"]  # wherever it stands
    verb = next((word for word in argv if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        print(f'inrbridge: there is no verb "{verb}".{did_you_mean(verb, VERBS)} See: inrbridge --help', file=sys.stderr)
        return 2
    if not argv:
        print(build_parser(None).format_help(), file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _once(_show_warning)
            try:
                args = build_parser(verb).parse_args(argv)
            except SystemExit as stop:  # --help, --version, or a usage error that argparse has told
                return stop.code if isinstance(stop.code, int) else 2
            code = verb_module(args.verb).run(args) or 0
            sys.stdout.flush()
            return code
    except InrBridgeError as error:
        if debug:
            raise
        print(f"inrbridge {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"inrbridge {verb}: interrupted; what was finished is kept{GO_ON.get(verb, '')}.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        print(f"inrbridge {verb}: {_told(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or "no reason given"
        print(f"inrbridge {verb}: {type(error).__name__}: {text} (run again with --debug for the traceback)", file=sys.stderr)
        return 1


def _told(error: OSError) -> str:
    """Say what the operating system refused, and what to look at."""
    where = f"Cannot use {error.filename}" if error.filename is not None else type(error).__name__
    return f"{where}: {error.strerror or error}; check the path, its permissions, and the room on its disk."


def _once(show):
    """Show each warning once a run, and of kernels that are too narrow only the first: the layers of a net repeat it."""
    seen = set()

    def show_new(message, category, *place, **options) -> None:
        key = category if issubclass(category, SupportTooNarrow) else str(message)
        if key not in seen:
            seen.add(key)
            show(message, category, *place, **options)

    return show_new


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"inrbridge: warning: {' '.join(str(message).split())}", file=sys.stderr)
