"""Run `python -m benchmark.speed`."""

import sys

from benchmark.speed.command import main

if __name__ == "__main__":
    sys.exit(main())
