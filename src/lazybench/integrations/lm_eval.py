"""lm-eval's own command line with our engine as a model and our tasks beside its own::

    lazybench lm-eval --model lazyllm --model_args pretrained=MODEL,pruning=paper \\
        --tasks lazybench_qasper --metadata '{"data_root": "FOLDER"}' --batch_size 4

Without ``data_root`` the documents come from the hub. Our task files are named ``lazybench_<dataset>``, the groups
``lazybench_<category>``, ``lazybench_longbench``, ``lazybench_longbench_zh`` and ``lazybench_longbench_e``.
"""

from __future__ import annotations

import sys

from lazybench.errors import UserError, command, refuse
from lazybench.tasks.lm_eval_task import TASK_FILES


@command
def main() -> int:
    """Run lm-eval on this process's arguments; bad input ends with one line and exit code 2."""
    from lm_eval.__main__ import cli_evaluate

    import lazybench.integrations.lm_eval_model  # noqa: F401  registers the model

    given = {argument.partition("=")[0] for argument in sys.argv}
    if given & {"--tasks", "-t"} and "--include_path" not in given:
        sys.argv += ["--include_path", str(TASK_FILES)]
    try:
        cli_evaluate()
    except (OSError, ValueError, KeyError) as error:  # lm-eval's for bad input; UserError is one
        return refuse(UserError(str(error)[:400]))
    return 0
