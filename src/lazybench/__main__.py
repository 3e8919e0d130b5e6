"""``python -m lazybench``: what there is. ``python -m lazybench run ...`` is the command ``lazybench ...``."""

import sys
from importlib import import_module

from lazybench import __version__
from lazybench.run.entry import command

OVERVIEW = f"""lazybench {__version__}: LazyLLM (arXiv 2407.14057) and its rivals, timed and scored on long prompts

  lazybench KEY=VALUE ...                  measure methods on a task (in a checkout also: python run.py ...)
  lazybench --help                         its keys; --help tasks, models, methods, pruning: what they can be
  python -m lazybench.cli.experiment NAME SIZE a table or figure of the paper, as in: fig5 mini
  python -m lazybench report FOLDER        tables, figures and one HTML page of results
  python -m lazybench leaderboard FOLDER   methods at matched speeds, and pairwise comparisons
  python -m lazybench verify FOLDER        scores, columns and summary computed again from the records
  python -m lazybench pack FOLDER --out X  finished runs as one file of records, X.parquet, and one of their origin
  python -m lazybench.integrations.lm_eval ...          lm-eval's command line with LazyLLM as a model

  from lazybench import LazyLLM, PruningSchedule      with LazyLLM(model, schedule): model.generate(...)"""


COMMANDS = {
    "run": "lazybench.cli.main",
    "report": "lazybench.report.__main__",
    "leaderboard": "lazybench.report.board",
    "verify": "lazybench.report.verify",
    "pack": "lazybench.run.campaign",
}


@command
def main() -> int:
    """The overview, or what the first argument names, with the others."""
    if sys.argv[1:2] == ["--version"]:
        print(f"lazybench {__version__}")
        return 0
    if not sys.argv[1:] or sys.argv[1] not in COMMANDS:
        print(OVERVIEW)
        return 0 if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help") else 2
    return int(import_module(COMMANDS[sys.argv.pop(1)]).main())


if __name__ == "__main__":
    sys.exit(main())
