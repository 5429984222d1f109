"""Run `python -m benchmark.tune`."""

import sys

from benchmark.tune.trials import main

if __name__ == "__main__":
    sys.exit(main())
