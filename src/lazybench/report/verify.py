"""``python -m lazybench verify FOLDER...``: do the published numbers follow from the raw records and the data?

For each run at or below the folders, and each of a campaign file, is computed again what can be: which records are
there, so that none was left out; every score, from the prediction and the data's answers; every FLOPs ratio, from the
tokens that were counted. With ``--remeasure N`` some records are measured anew, where model and data are at hand. The
columns that nobody checked are named. Nothing that a folder holds is run.
Exit code 0: all that was computed again matches; 1: something does not, and is named; 2: bad input, or what would
decide is not at hand.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from lazybench.errors import Parser, UserError, command, library_errors, one_line, refuse
from lazybench.pruning.settings import path_of
from lazybench.report.checks import Check, check_flops, check_records, config_of, measured_task, where
from lazybench.report.summary import VALUES
from lazybench.run.config import RunConfig
from lazybench.run.reading import Run, find_runs, read_runs
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.tasks.base import Sample, Task

SHOWN = 10  # mismatches printed of each kind
SAME_WEIGHTS = ("sha256", "fingerprint", "revision", "weights", "parameters", "dtype", "attention", "quantization")
# column to its tolerances, relative and absolute: another processor rounds otherwise, and a token at a tie may go
WORK, NATS, SHARE = (0.01, 0.0), (0.05, 0.001), (0.0, 0.1)
COLUMNS = {
    **dict.fromkeys(("prompt_tokens", "truncated_from", "output_tokens", "prediction"), (0.0, 0.0)),
    **dict.fromkeys(("prompt_tokens_computed", "prompt_tokens_computed_by_stage"), WORK),
    **dict.fromkeys(("prompt_tokens_computed_by_step", "tokens_of_layer_runs", "mlp_tokens_of_layer_runs"), WORK),
    **dict.fromkeys(("other_flops", "flops_ratio"), WORK),
    **dict.fromkeys(("kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end"), WORK),
    **dict.fromkeys(("fidelity_kl", "fidelity_first_kl"), NATS),
    **dict.fromkeys(("fidelity_top1", "fidelity_first_top1"), SHARE),
}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = Parser("python -m lazybench verify", __doc__)
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="runs or campaigns, at any depth")
    parser.add_argument("--data-root", type=path_of, help="LongBench-schema JSONL files; default: as it was run")
    parser.add_argument("--remeasure", type=int, default=0, metavar="N", help="measure N records anew, drawn by chance")
    parser.add_argument("--model-path", type=path_of, help="the weights for --remeasure; default: as it was run")
    options = parser.parse_args(arguments)
    codes: list[int] = []
    for path in dict.fromkeys(path for root in options.folders for path in find_runs(root, may_lack=True) or [root]):
        try:
            codes += [_verify(run, options) for run in read_runs(path)]
        except UserError as error:
            codes.append(refuse(error))
    print(
        f"{len(codes)} runs, what was computed again: {codes.count(0)} match, {codes.count(1)} differ, "
        f"{codes.count(UserError.exit_code)} not checked, or not wholly"
    )
    return 1 if 1 in codes else max(codes)


def _verify(run: Run, options: argparse.Namespace) -> int:
    """Check one run, say what was found, and give its exit code."""
    checks = [("flops_ratio", check_flops(run))]
    try:
        config = config_of(run, options.data_root, options.model_path)
        checks += check_records(run, config).items()
        if options.remeasure > 0:
            checks += remeasured(run, config, options.remeasure).items()
    except UserError as error:
        checks.append(("run", Check(not_checked=[f"not checked: {error}"])))
    print(f"{run.path}:")
    for name, check in checks:
        verdict = f": {'differ' if check.different else 'match'}" if check.compared or check.different else ""
        print(f"{name}: {check.compared} of {check.expected} {check.how}{verdict}")
        for line in [*check.different[:SHOWN], *check.not_checked]:
            print(f"  {one_line(line)}")
        if len(check.different) > SHOWN:
            print(f"  and {len(check.different) - SHOWN} more")
    checked = {name for name, check in checks if check.compared}
    columns = [name for name in dict.fromkeys((*VALUES, *COLUMNS)) if name not in checked]
    left = ", ".join(name for name in columns if any(getattr(record, name) for record in run.records)) or "nothing"
    print(f"not checked: {left}; --remeasure N measures N records anew, times and memory nobody can check")
    if not run.finished:
        print("unfinished: the run has no `done` marker, so samples may still be missing")
    if any(check.different for _, check in checks):
        return 1
    return UserError.exit_code if any(check.not_checked for _, check in checks) else 0


def remeasured(run: Run, config: RunConfig, count: int) -> dict[str, Check]:
    """Measure at least ``count`` records anew, all methods of samples drawn by chance, and compare them by column.

    Raises:
        UserError: model or data are not at hand or others.
    """
    from lazybench.models import load_model  # with torch and the model's library
    from lazybench.run.measuring import Measuring

    failing = library_errors(f"{run.path.name} can't be measured anew")  # a foreign configuration or checkpoint
    # the hub's cache is read, the hub is not asked
    with TemporaryDirectory() as scratch, patch("huggingface_hub.constants.HF_HUB_OFFLINE", True), failing:
        config = replace(config, out=Path(scratch) / "anew")
        chosen = _chosen(run, config, count)
        loaded = load_model(config.model)
        noted = run.provenance.get("model") or {}
        for name in SAME_WEIGHTS:
            if noted.get(name) != (here := loaded.provenance.get(name)):
                raise UserError(f"the model at hand is not the one measured: {name} {here}, not {noted.get(name)}")
        for method in config.methods:
            method.prepare(loaded.model)
        with RunFolder.open(config.out, {}, {}) as folder:
            Measuring(config, loaded, folder).measure_all(chosen)
            return _compared(run, list(folder.done.values()))


def _chosen(run: Run, config: RunConfig, count: int) -> list[tuple[Task, int, Sample]]:
    """Drawn anew each time: who changed records by hand cannot know which are looked at."""
    first, jobs = config.data.shard
    tasks = [measured_task(run, name, config) for name in config.datasets]
    samples = [(task, first + place * jobs, sample) for task in tasks for place, sample in enumerate(task.samples())]
    of_sample = Counter((record.task, record.sample_id) for record in run.records if record.error is None)
    chosen: list[tuple[Task, int, Sample]] = []
    for one in random.sample(samples, len(samples)):
        held = of_sample[one[0].name, one[2].sample_id]
        if held and count > 0:
            count -= held
            chosen.append(one)
    return chosen


def _compared(run: Run, anew: list[Record]) -> dict[str, Check]:
    stored = {record.key[1:]: record for record in run.records if record.error is None}  # but for the model's name
    checks = {name: Check("measured anew", expected=len(stored)) for name in COLUMNS}
    for record in anew:
        before = stored.get(record.key[1:])
        for name, check in checks.items() if before else ():
            old, new = getattr(before, name), record.error or getattr(record, name)
            if before and (record.error or old not in (None, "", ())):  # else not measured then
                check.compare(where(before), old, new, *COLUMNS[name])
    return {name: check for name, check in checks.items() if check.compared}
