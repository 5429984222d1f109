"""`python -m benchmark.curate`."""

import sys

from benchmark.curate.command import main

if __name__ == "__main__":
    sys.exit(main())
