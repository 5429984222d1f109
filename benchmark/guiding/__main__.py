"""`python -m benchmark.guiding`."""

import sys

from benchmark.guiding.signals import main

if __name__ == "__main__":
    sys.exit(main())
