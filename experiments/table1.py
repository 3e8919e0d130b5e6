"""Score and TTFT speedup of the five methods: python experiments/table1.py smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.experiment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("table1", sys.argv[1:]))
