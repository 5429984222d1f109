"""Entry point of `python -m flexiact.checkpoints`."""

import sys

from flexiact.checkpoints.convert import main

if __name__ == "__main__":
    sys.exit(main())
