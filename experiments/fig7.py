"""Prompt tokens computed per stage and step: python experiments/fig7.py smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.experiment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("fig7", sys.argv[1:]))
