"""CPU seconds until the command line answers, each time in a fresh process, and whether it imported torch.

python tests/benchmarks/startup.py --rounds 5
"""

import resource
import statistics
import subprocess
import sys

from measuring import arguments, report

GOAL = 0.3  # seconds of CPU time
VERBS = {"help": ["--help"], "formats": ["formats"]}
PROGRAM = """
import sys
from inrbridge.cli.main import main
try:
    main({words!r})
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""


def run(words):
    """CPU seconds of one process, children of its own included, and whether it knew torch at its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(words=words)], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return spent, done.stderr.split()[-1] == "True"


def main():
    args = arguments(__doc__)
    for name, words in VERBS.items():
        run(words)  # byte code is written
        found = [run(words) for _ in range(args.rounds)]
        seconds = statistics.median(spent for spent, _ in found)
        report(args, case=f"startup {name}", device="cpu", threads=args.threads, ours_ms=round(1e3 * seconds, 1), anchor="goal",
               anchor_ms=1e3 * GOAL, ratio=round(seconds / GOAL, 3), imports_torch=any(heavy for _, heavy in found))  # fmt: skip


if __name__ == "__main__":
    main()
