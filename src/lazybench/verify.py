"""``python -m lazybench.verify``: see ``report/verify.py``."""

import sys

from lazybench.report.verify import main

if __name__ == "__main__":
    sys.exit(main())
