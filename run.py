"""python run.py model=llama2 task=qasper: what the command `lazybench` does, from a checkout."""

import sys

from lazybench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
