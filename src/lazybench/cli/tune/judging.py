"""How settings are judged: against the plain model's own answers on the same prompts in every trial, not by a clock."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy
from scipy.stats import gmean

from lazybench.errors import UserError
from lazybench.measure.fidelity import Reference, quality
from lazybench.measure.reference_store import ReferenceStore
from lazybench.measure.work import shares_of
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.request import Request
from lazybench.models import load_model
from lazybench.report.statistics import KL_FLOOR
from lazybench.run.config import RunConfig
from lazybench.run.prompts import encode, request_for
from lazybench.tasks import build_task

DIVERGENCES = ("kl", "first_kl", "later_kl")  # of all tokens, the first and the later ones
Found = dict[str, float]  # DIVERGENCES: geometric means over the prompts; flops_ratio; top1: share of equal tokens


@dataclass(frozen=True)
class Judge:
    """One model with its prompts; what the plain model made of each lies on disk, shared by all jobs."""

    model: str
    prompts: tuple[tuple[Request, Callable[[], Reference]], ...]

    @classmethod
    def prepare(cls, config: RunConfig, shard: tuple[int, int]) -> Judge:
        """Load the run's model and record what no job has recorded yet.

        Raises:
            UserError: random weights; a prompt that doesn't fit the model's window.
        """
        loaded = load_model(config.model)
        if not loaded.scores_mean_something:
            raise UserError("a search needs real weights; leave model.weights=random out")
        known = json.dumps(loaded.provenance, sort_keys=True, default=str)
        store = ReferenceStore(config.references or config.out / "references", known, Baseline())
        prompts = []
        for name in config.datasets:
            task = build_task(name, replace(config.data, shard=shard))
            fingerprint = task.fingerprint
            for index, sample in enumerate(task.samples()):
                request = request_for(config, loaded, task, encode(config, loaded, task, sample), index)
                names = {"task": task.name, "data_fingerprint": fingerprint, "sample_id": sample.sample_id}
                reference = partial(store.get, request, **names)
                reference()
                prompts.append((request, reference))
        print(f"{loaded.label}: {len(prompts)} prompts", file=sys.stderr)
        return cls(loaded.label, tuple(prompts))

    def judge(self, method: Method) -> Found:
        """Divergence from the plain model, of the first token and the later ones apart, and what is saved."""
        rows = []
        for request, reference in self.prompts:
            judged = quality(method, request, reference())
            kl, ratio = judged.fidelity, shares_of(judged.response.work, request).flops_ratio
            rows.append((kl.kl, kl.first_kl, kl.kl if kl.later_kl is None else kl.later_kl, ratio, kl.top1))
        *divergences, ratios, top1 = numpy.array(rows).T  # (prompts,) each
        return {
            **{
                name: float(gmean(numpy.maximum(kl, KL_FLOOR)))
                for name, kl in zip(DIVERGENCES, divergences, strict=True)
            },
            "flops_ratio": float(1 / (1 / ratios).mean()),  # of all prompts' work together, as the leaderboard has it
            "top1": float(top1.mean()),
        }
