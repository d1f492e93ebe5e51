"""`python -m inrbridge` is the command line; so is `torchrun -m inrbridge`."""

import sys

from inrbridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
