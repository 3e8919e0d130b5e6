"""Share of prefill and decoding: python experiments/fig1.py smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.experiment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("fig1", sys.argv[1:]))
