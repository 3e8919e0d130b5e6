"""``python -m lazybench``: the command ``lazybench``."""

import sys

from lazybench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
