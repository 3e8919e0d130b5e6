"""One pruning layer against its keep ratio: python experiments/fig6.py smoke|mini|full [overrides of run.py]"""

import sys

from lazybench.experiment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("fig6", sys.argv[1:]))
