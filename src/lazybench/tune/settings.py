"""What a schedule search is told: the block ``tune:`` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lazybench.errors import UserError, check_whole_number, unknown_name


@dataclass(frozen=True)
class TuneSettings:
    """How long to search and what counts as a good schedule.

    Args:
        trials: schedules to try, all jobs together.
        loss: how much of the quality the best schedule may lose, 0.01 for 1%.
        loss_of: the quality: ``"score"`` relative to the baseline's, or ``"fidelity"``, the share of the
            baseline's greedy tokens that the schedule predicts too (for models that score near zero).
        stages: pruning layers of a schedule.
        least_keep: the smallest keep ratio tried.
        timeout_s: stop after this many seconds even if trials are left; None: never.
        storage: a database URL of Optuna; None: a journal in the run's folder, which jobs may share.
        job: number of this job among those that share the search; it only moves the seed.
    """

    trials: int = 40
    loss: float = 0.01
    loss_of: str = "score"
    stages: int = 3
    least_keep: float = 0.1
    timeout_s: float | None = None
    storage: str | None = None
    job: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("trials", self.trials, 1), ("stages", self.stages, 1), ("job", self.job, 0)):
            check_whole_number(f"tune.{name}", value, least)
        for name, share in (("loss", self.loss), ("least_keep", self.least_keep)):
            if not isinstance(share, int | float) or not 0 <= share < 1:
                raise UserError(f"tune.{name}={share} must be a share from 0 to below 1, as in tune.{name}=0.1")
        if self.least_keep == 0:
            raise UserError("tune.least_keep=0 must be above 0: at least one token has to stay")
        if self.timeout_s is not None and (not isinstance(self.timeout_s, int | float) or self.timeout_s <= 0):
            raise UserError(f"tune.timeout_s={self.timeout_s} must be a number of seconds above 0, or null")
        if self.loss_of not in ("score", "fidelity"):
            raise unknown_name("tune.loss_of", str(self.loss_of), ["score", "fidelity"])

    @classmethod
    def from_config(cls, block: Mapping[str, Any]) -> TuneSettings:
        """Check the names too.

        Raises:
            UserError: a key or a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]
        for name in block:
            if name not in known:
                raise unknown_name("key of tune", str(name), known)
        return cls(**block)
