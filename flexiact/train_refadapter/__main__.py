"""`python -m flexiact.train_refadapter`."""

import sys

from flexiact.train_refadapter.command import main

if __name__ == "__main__":
    sys.exit(main())
