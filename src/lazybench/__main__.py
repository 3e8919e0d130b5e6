"""``python -m lazybench``: what there is. ``python -m lazybench run ...`` is the command ``lazybench ...``."""

import sys

from lazybench import __version__
from lazybench.run.entry import command

OVERVIEW = f"""lazybench {__version__}: LazyLLM (arXiv 2407.14057) and its rivals, timed and scored on long prompts

  lazybench KEY=VALUE ...                  measure methods on a task (in a checkout also: python run.py ...)
  lazybench --help                         its keys; --help tasks, models, methods, pruning: what they can be
  python -m lazybench.cli.experiment NAME SIZE a table or figure of the paper, as in: fig5 mini
  python -m lazybench.report FOLDER        tables, figures and one HTML page of results
  python -m lazybench.report.leaderboard_command FOLDER   methods at matched speeds, and who beats whom
  python -m lazybench.report.verify FOLDER        computed again what can be; --remeasure N measures anew
  python -m lazybench.integrations.lm_eval ...          lm-eval's command line with LazyLLM as a model

  from lazybench import LazyLLM, PruningSchedule      with LazyLLM(model, schedule): model.generate(...)"""


@command
def main() -> int:
    """The overview, or the run that the arguments say."""
    if sys.argv[1:2] != ["run"]:
        print(OVERVIEW)
        return 0 if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help") else 2
    from lazybench.cli import main as command_line

    del sys.argv[1]
    return command_line.main()


if __name__ == "__main__":
    sys.exit(main())
