"""`python -m flexiact.memory`."""

import sys

from flexiact.memory.check import main

if __name__ == "__main__":
    sys.exit(main())
