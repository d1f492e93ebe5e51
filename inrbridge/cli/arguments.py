"""Floor 9: the parser of the command line: a wrong option is one sentence with the nearest right one, and counts are counts."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

from inrbridge.errors import did_you_mean


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def parse_args(self, args=None, namespace=None):
        """Parse; words that are left over belong to the verb, and are told with its own options in mind."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            verb = getattr(found, "verb", None)
            chosen = next((a.choices[verb] for a in self._actions if isinstance(a, argparse._SubParsersAction)), self)
            chosen.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong on standard error, and stop with exit code 2."""
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        strange = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        near = did_you_mean(strange[1], known) if strange else ""
        full_stop = "" if message.endswith((".", "?")) else "."
        print(f"{self.prog}: {message}{full_stop}{near} See: {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def count(text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'got "{text}", expected a whole number of at least 1')
    return number


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f'got "{text}", expected a whole number of at least 0')
    return int(text)


def positive(text: str) -> float:
    """Read a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f'got "{text}", expected a number above 0')
    return number


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every verb that applies a trained model to fields."""
    parser.add_argument("--seed", metavar="SEED", type=int, help="seed of the points")
    parser.add_argument("--batch-size", metavar="B", type=count, default=64, help="fields at once")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--trust", metavar="MODULE", action="append", default=[], help="a module that may bring the class of the model"
    )
