"""python run.py model=llama2 task=qasper: the command `lazybench` from a checkout; alone, it runs the default."""

import sys

from lazybench.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["limit=10"]))
