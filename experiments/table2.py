"""Prompt tokens computed, overall speedup: python experiments/table2.py smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.experiment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("table2", sys.argv[1:]))
