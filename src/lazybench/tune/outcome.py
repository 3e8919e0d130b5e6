"""What a schedule search leaves in its folder.

trials.csv                  every schedule tried, the Pareto front first
best.yaml                   the fastest schedule within the loss, for pruning=FOLDER/best.yaml
confirmation-of-trial-<n>/  an ordinary run of that schedule and the baseline on samples that no trial has seen
search.json                 both results, and the ids of the samples of both
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lazybench.config import RunConfig, TuneSettings
from lazybench.errors import UserError
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.pruning.schedule import PruningSchedule
from lazybench.runner import run
from lazybench.store.files import write_atomically
from lazybench.store.reading import read_records
from lazybench.store.record import Record
from lazybench.tasks import build_task

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SPEEDUP, FIDELITY, SCORE = range(3)  # places of a trial's values
COLUMNS = ("trial", "layers", "keep", "flops_ratio", "fidelity_top1", "relative_score", "on_front")
Shard = tuple[int, int]


def write_trials(config: RunConfig, trials: Sequence[FrozenTrial], front: set[int]) -> None:
    """trials.csv: the Pareto front first, the fastest first."""
    rows = [{**_row(trial), "on_front": trial.number in front} for trial in trials]
    rows.sort(key=lambda row: (not row["on_front"], -row["flops_ratio"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(config.out / "trials.csv", text.getvalue().encode())


def best_trial(settings: TuneSettings, trials: Sequence[FrozenTrial]) -> FrozenTrial:
    """The fastest schedule within the loss; among equals the one that follows the plain model most closely.

    Raises:
        UserError: no schedule loses as little as asked.
    """
    quality = SCORE if settings.loss_of == "score" else FIDELITY
    within = [trial for trial in trials if 1 - trial.values[quality] <= settings.loss + 1e-12]
    if not within:
        raise UserError(
            f"none of {len(trials)} schedules loses at most {settings.loss:.1%} of the baseline's {settings.loss_of}; "
            "all are in trials.csv; raise tune.loss= or tune.trials="
        )
    return max(within, key=lambda trial: (trial.values[SPEEDUP], trial.values[FIDELITY]))


def confirm(config: RunConfig, best: FrozenTrial, method: LazyLLMMethod, tuning: Shard, confirming: Shard) -> int:
    """Write the preset, measure it on the samples left out, and write search.json.

    Returns:
        the exit code of the measurement.
    """
    settings = config.tune
    assert settings is not None
    write_atomically(config.out / "best.yaml", _preset(config, settings, best, method.pruning).encode())
    shard = f"{confirming[0]}/{confirming[1]}"
    confirmation = replace(
        config,
        tune=None,
        methods=(Baseline(), method),
        data=replace(config.data, shard=confirming),
        fidelity=True,
        scoring=True,
        out=config.out / f"confirmation-of-trial-{best.number}",
        resolved=config.resolved
        | {"tune": None, "shard": shard, "pruning": method.label, "methods": ["baseline", "lazyllm"]},
    )
    code = run(confirmation)
    confirmed = _confirmed(read_records(confirmation.out / "samples.jsonl"), settings)
    outcome = {
        "best": _row(best),
        "confirmation": confirmed,
        "tuning_samples": _sample_ids(config, tuning),
        "confirming_samples": _sample_ids(config, confirming),
    }
    write_atomically(config.out / "search.json", (json.dumps(outcome, indent=2) + "\n").encode())
    verdict = "confirmed" if confirmed["within_loss"] else "NOT confirmed"
    print(
        f"best schedule: {method.label}; {verdict} on {confirmed['samples']} samples left out: "
        f"FLOPs ratio {confirmed['flops_ratio']}, measured {confirmed['ttft_speedup']}, "
        f"relative score {confirmed['relative_score']}, fidelity {confirmed['fidelity_top1']}\n"
        f"preset: pruning={config.out / 'best.yaml'}"
    )
    return code


def _row(trial: FrozenTrial) -> dict[str, Any]:
    speedup, agreement, score = trial.values
    return {
        "trial": trial.number,
        "layers": " ".join(map(str, trial.user_attrs["layers"])),
        "keep": " ".join(map(str, trial.user_attrs["keep"])),
        "flops_ratio": round(speedup, 4),
        "fidelity_top1": round(agreement, 4),
        "relative_score": round(score, 4),
    }


def _preset(config: RunConfig, settings: TuneSettings, best: FrozenTrial, pruning: PruningSchedule) -> str:
    row = _row(best)
    return (
        f"# The fastest of {settings.trials} schedules within {settings.loss:.1%} loss of {settings.loss_of}: "
        f"{config.model.name} on {config.task_name}.\n"
        f"# On the tuning samples: FLOPs ratio {row['flops_ratio']:.2f}, "
        f"relative score {row['relative_score']:.3f}, fidelity {row['fidelity_top1']:.3f}.\n"
        "_target_: lazybench.pruning.schedule.PruningSchedule\n"
        "kind: steps\n"
        f"layers: {list(pruning.layers or ())} # 0-based layers after which tokens are pruned\n"
        "depths: null\n"
        f"keep: {list(pruning.keep)} # keep ratio at each\n"
        f"ratio_of: {pruning.ratio_of}\n"
        f"generated: {pruning.generated}\n"
        f"sliding_window: {pruning.sliding_window}\n"
    )


def _confirmed(records: Sequence[Record], settings: TuneSettings) -> dict[str, Any]:
    """What the samples left out say; a sample that failed under either method is left aside."""
    measured = {(record.method, record.task, record.sample_id): record for record in records if record.error is None}
    pairs = [
        (plain, pruned)
        for (method, task, sample), plain in measured.items()
        if method == "baseline" and (pruned := measured.get(("lazyllm", task, sample))) is not None
    ]
    if not pairs:
        raise UserError("every sample that was to confirm the schedule failed; the records name the errors")
    baseline_score = sum(plain.score or 0.0 for plain, _ in pairs)
    relative = sum(pruned.score or 0.0 for _, pruned in pairs) / baseline_score if baseline_score else None
    agreement = sum(pruned.fidelity_top1 or 0.0 for _, pruned in pairs) / len(pairs)
    quality = relative if settings.loss_of == "score" else agreement
    ttft = [sum(record.ttft_s or 0.0 for record in column) for column in zip(*pairs, strict=True)]
    return {
        "samples": len(pairs),
        "flops_ratio": round(sum(pruned.flops_ratio or 0.0 for _, pruned in pairs) / len(pairs), 4),
        "ttft_speedup": round(ttft[0] / ttft[1], 4),
        "fidelity_top1": round(agreement, 4),
        "relative_score": None if relative is None else round(relative, 4),
        "within_loss": quality is not None and 1 - quality <= settings.loss + 1e-12,
    }


def _sample_ids(config: RunConfig, shard: Shard) -> dict[str, list[str]]:
    data = replace(config.data, shard=shard)
    return {name: [sample.sample_id for sample in build_task(name, data).samples()] for name in config.datasets}
