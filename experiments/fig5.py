"""Relative score over TTFT speedup: python experiments/fig5.py smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.experiment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("fig5", sys.argv[1:]))
