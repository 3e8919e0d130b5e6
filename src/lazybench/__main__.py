"""``python -m lazybench``: without arguments what there is, else the command ``lazybench``."""

import sys

from lazybench.cli.main import OVERVIEW, main

if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(OVERVIEW)
        sys.exit(0)
    sys.exit(main())
