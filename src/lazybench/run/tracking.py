"""Where a run can be watched from outside; results/ is complete without any of it.

``tracker=wandb`` is https://docs.wandb.ai, offline by itself where there is no account or no network.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lazybench.errors import UserError
from lazybench.run.record import Record

RECORDS = ("config.yaml", "provenance.json", "samples.jsonl")
INIT_TIMEOUT_S = 30
LIVE_METRICS = (
    *("ttft_s", "generation_s", "decode_step_s", "score", "fidelity_top1", "fidelity_kl"),
    *("prompt_tokens_computed", "peak_memory_bytes"),
)


class WeightsAndBiases:
    """Config, live metrics, the summary table, the plot, and an artifact with what a sceptic needs."""

    def __init__(self, config: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Open the run, online where that works, else offline; which one is said in a line.

        Raises:
            UserError: the package is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise UserError("tracker=wandb needs its package: pip install wandb, or tracker=none") from error
        self._wandb = wandb
        reason, mode = None, os.environ.get("WANDB_MODE", "")
        if mode not in ("", "online"):
            reason = f"WANDB_MODE={mode}"
        elif not mode and not _has_account(wandb):
            reason = "no account: set WANDB_API_KEY or run wandb login"
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", "lazybench"),
            "name": f"{config.get('model', {}).get('name', 'model')}-{config.get('task', {}).get('name', 'task')}",
            "config": {**config, "provenance": provenance},
            # its sampling of the hardware would run beside what is timed; its capture of the terminal garbles the bar
            "settings": wandb.Settings(
                x_disable_stats=True, x_disable_machine_info=True, disable_git=True, save_code=False,
                console="off", silent=True, init_timeout=INIT_TIMEOUT_S,
            ),
        }  # fmt: skip
        if reason is None:
            try:
                self._run: Any = wandb.init(**options)
            except wandb.errors.Error as error:
                reason = f"no server: {type(error).__name__}"
        if reason is not None:
            self._run = wandb.init(mode="offline", **options)
        where = self._folder if self._run.offline else self._run.url
        _say(f"wandb: {f'offline ({reason}), kept in' if reason else 'run at'} {where}")

    def log(self, record: Record) -> None:
        """The record's numbers under ``task/method settings/``, and the failures under ``failed``."""
        name = f"{record.task}/{' '.join((record.method, record.label)).strip()}"
        numbers = {f"{name}/{metric}": getattr(record, metric) for metric in LIVE_METRICS}
        measured = {metric: value for metric, value in numbers.items() if value is not None}
        self._run.log({**measured, f"{name}/failed": int(record.error is not None)})

    def finish(self, summary_csv: Path, plot_path: Path) -> None:
        """Add the table, the plot and the artifact, and say how to upload an offline run."""
        wandb, folder = self._wandb, summary_csv.parent
        import pandas

        table = wandb.Table(dataframe=pandas.read_csv(summary_csv))
        plots = [plot_path] if plot_path.exists() else []  # none where no quality was measured
        self._run.log({"summary": table, **{path.stem: wandb.Image(str(path)) for path in plots}})
        artifact = wandb.Artifact(f"run-{self._run.id}", type="lazybench-run")
        for path in (*(folder / name for name in RECORDS), summary_csv, *plots):
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        offline, kept = self._run.offline, self._folder
        self._run.finish()
        if offline:
            _say(f"wandb: upload it with: wandb sync {kept}")

    @property
    def _folder(self) -> str:
        return os.path.relpath(self._run.settings.sync_dir)


def _has_account(wandb: Any) -> bool:
    from requests.utils import get_netrc_auth

    settings = wandb.setup().settings
    return bool(settings.api_key or settings.identity_token_file or get_netrc_auth(settings.base_url))


def _say(text: str) -> None:
    print(f"lazybench: {text}", file=sys.stderr)
