"""A table or figure of the paper: python experiments/run.py fig5 smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.cli.experiment import main

if __name__ == "__main__":
    sys.exit(main())
