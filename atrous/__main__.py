"""`python -m atrous`: the command line."""

import sys

from .scripts.main import main

if __name__ == "__main__":
    sys.exit(main())
