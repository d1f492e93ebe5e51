"""What the README shows, works: its Python runs, its commands and options exist, its set-up stands at the top."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from inrbridge.cli.main import VERBS, build_parser

README = Path(__file__).parents[1] / "README.md"
if not README.is_file():
    pytest.skip("runs in a checkout: the README is not installed", allow_module_level=True)
LINES = README.read_text(encoding="utf-8").splitlines()
NO_RUN = "<!-- no-run -->"  # on the line before a block that is not to be run
SHELL = {"sh", "bash", "console"}


def parts():
    """Yield (line number from 0, kind, text) for each line: kind is the language of a fenced block, "indented" or "prose"."""
    language, is_marked = None, False
    for number, line in enumerate(LINES):
        fence = re.match(r"```\s*(\S*)", line)
        if fence and language is None:
            language = "no-run" if is_marked else fence[1] or "text"
        elif fence:
            language = None
        elif language is not None:
            yield number, language, line
        else:
            yield number, "indented" if line.startswith("    ") else "prose", line
        is_marked = line.strip() == NO_RUN or (is_marked and not line.strip())


def commands():
    """Yield (line number from 0, words after `inrbridge`) for each command of blocks, indented lines and `inline code`."""
    for number, kind, line in parts():
        if kind in SHELL or kind == "indented":
            texts = [line.strip().removeprefix("$ ")]
        elif kind == "prose":
            texts = re.findall(r"`([^`]+)`", line)
        else:
            continue
        for text in texts:
            for command in re.split(r"&&|;|\|", text):
                words = re.sub(r"(^|\s)#.*", "", command).split()
                if words[:1] == ["inrbridge"] and len(words) > 1:
                    yield number, shlex.split(" ".join(words[1:]))


def verb_of(words):
    return next((word for word in words if not word.startswith("-")), None)


def parser_of(verb):
    """Return the parser of a verb; without a verb, the one of them all."""
    top = build_parser(verb)
    if verb is None:
        return top
    (verbs,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return verbs.choices[verb]


def options(verb):
    """Return every long option of a verb."""
    return {name for name in parser_of(verb)._option_string_actions if name.startswith("--")}


def where(number):
    return f"README.md line {number + 1}: {LINES[number].strip()}"


def test_the_python_blocks_run_in_order(tmp_path):
    # Lines keep their numbers, so that a traceback points into the README.
    script = [""] * len(LINES)
    for number, kind, line in parts():
        if kind == "python":
            script[number] = line
    assert any(script)
    (tmp_path / "README.py").write_text("\n".join(script) + "\n", encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run([sys.executable, str(tmp_path / "README.py")], cwd=here, env={**os.environ, "OMP_NUM_THREADS": "1"},
                          text=True, capture_output=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_commands_name_verbs_and_options_that_exist():
    found = list(commands())
    assert found
    for number, words in found:
        verb = verb_of(words)
        assert verb is None or verb in VERBS, where(number)
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options(verb), where(number)
        chosen = [action.choices for action in parser_of(verb)._actions if not action.option_strings and action.choices]
        if verb and chosen:  # a verb such as `config init`
            assert words[words.index(verb) + 1 :][0] in chosen[0], where(number)


def test_options_named_beside_a_command_belong_to_it():
    verbs_of_line = {}
    for number, words in commands():
        verbs_of_line.setdefault(number, set()).add(verb_of(words))
    for number, kind, line in parts():
        if kind == "prose":
            for option in re.findall(r"`(--[a-z][a-z-]*)[^`]*`", line):
                known = set().union(*(options(verb) for verb in verbs_of_line.get(number, set(VERBS))))
                assert option in known, where(number)


def test_every_verb_is_shown():
    assert set(VERBS) <= {verb_of(words) for _, words in commands()}


@pytest.mark.parametrize("command", ["pip install -r requirements.txt && inrbridge demo",
                                     "pip install -r requirements-dev.txt && pytest"])  # fmt: skip
def test_the_set_up_stands_at_the_top(command):
    assert command in [line.strip() for line in LINES[:25]]
    needed = re.search(r"requirements[\w-]*\.txt", command)[0]
    assert (README.parent / needed).is_file()
