"""``python -m lazybench.leaderboard``: see ``report/board.py``."""

import sys

from lazybench.report.board import main

if __name__ == "__main__":
    sys.exit(main())
