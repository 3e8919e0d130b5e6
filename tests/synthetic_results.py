"""A results folder of made-up numbers, for the tests of tables, figures and notebooks; nothing here was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import yaml

from lazybench.report.results import Results
from lazybench.run.reading import Run
from lazybench.run.record import Record, to_line
from lazybench.tasks.catalogue import ENGLISH

Params = dict[str, Any]


def pruned(**pruning: object) -> Params:
    """LazyLLM's params with this schedule."""
    return {"pruning": pruning}


FIGURE6 = [("lazyllm", pruned(depths=[depth], keep=[keep])) for depth in (0.1, 0.5, 0.9) for keep in (0.3, 0.7)]
METHODS: list[tuple[str, Params]] = [
    ("baseline", {}),
    ("random_drop", {"keep": 0.7}),
    ("static_pruning", {"keep": 0.5}),
    ("prompt_compression", {"keep": 0.5}),
    ("lazyllm", {}),
    ("lazyllm", pruned(keep=[0.5, 0.5, 0.5])),
]
SPEEDUPS = {"baseline": 1.0, "random_drop": 1.4, "static_pruning": 1.3, "prompt_compression": 0.4, "lazyllm": 1.6}


def made_up_records(samples: int = 4, steps: int = 12, methods: list[tuple[str, Params]] | None = None) -> list[Record]:
    """Records of every English category, shaped like a run's."""
    random = numpy.random.default_rng(0)
    records = []
    for category, tasks in ENGLISH.items():
        for task in tasks:
            for index in range(samples):
                prompt_tokens = int(random.integers(1500, 3500))
                first = prompt_tokens / 2000 * random.normal(1, 0.02)
                right = float(random.uniform(0.2, 0.6))
                for order, (method, params) in enumerate(methods or METHODS):
                    keeps = params.get("pruning", params).get("keep", [0.7] * 3 if method == "lazyllm" else 1.0)
                    keep = keeps[0] if isinstance(keeps, list) else keeps
                    speedup = SPEEDUPS[method] * (1.7 - keep if method == "lazyllm" else 1.0)
                    lost = 0.0 if method == "baseline" else (1 - keep) * float(random.uniform(0.0, 0.4))
                    stages = len(keeps) + 1 if isinstance(keeps, list) else 1
                    final = [1.0 if method == "baseline" else max(0.05, keep**stage) for stage in range(stages)]
                    by_step = tuple(
                        tuple(min(1.0, share + 0.01 * step * (stage > 0)) for stage, share in enumerate(final))
                        for step in range(steps)
                    )
                    ttft = first / speedup * float(random.normal(1, 0.02))
                    records.append(
                        Record(
                            model="made-up",
                            task=task,
                            category=category,
                            method=method,
                            params=params,
                            sample_id=f"{task}-{index}",
                            repeat=0,
                            prompt_tokens=prompt_tokens,
                            output_tokens=steps,
                            ttft_s=ttft,
                            generation_s=ttft + 0.05 * (steps - 1),
                            decode_step_s=0.05,
                            overhead_s=0.7 * ttft if method == "prompt_compression" else 0.0,
                            score=right * (1 - lost),
                            prediction=f"<b>{method}</b> says {index}",
                            prompt_tokens_computed=float(numpy.mean(by_step[-1])),
                            prompt_tokens_computed_by_stage=by_step[-1],
                            prompt_tokens_computed_by_step=by_step,
                            flops_ratio=speedup * 1.05 if method != "baseline" else 1.0,
                            peak_memory_bytes=10**9,
                            fidelity_top1=1 - lost,
                            fidelity_kl=lost / 4,
                            fidelity_first_top1=1.0,
                            fidelity_first_kl=lost / 4,
                            order=order,
                        )
                    )
    return records


def results_of(*runs: list[Record]) -> Results:
    """Runs that nothing was written of."""
    config: dict[str, Any] = {"model": {}, "task": {}}
    return Results(tuple(Run(Path(f"run{n}"), config, {}, records, finished=True) for n, records in enumerate(runs)))


def write_run(folder: Path, records: list[Record], facts: dict[str, object] | None = None, **config: object) -> Path:
    """A run folder as the store leaves it; ``facts`` stand in its provenance."""
    folder.mkdir(parents=True)
    tasks = list(dict.fromkeys(record.task for record in records))
    settings = {
        "model": {"name": "made-up", "chat_format": "none"},
        "task": {"name": "longbench", "datasets": tasks},
        "methods": [],
        "limit": 4,
        "seed": 0,
        **config,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    facts = facts or {}
    facts = {
        "started_at": "2024-07-19T00:00:00+00:00",
        "commit": "0" * 40,
        "dirty": False,
        "model": {"name": "made-up", "dtype": "float32"},
        "tasks": {task: {"fingerprint": "0" * 64, "source": f"file {task}.jsonl"} for task in tasks},
        "libraries": {"python": "3.12", "torch": "2"},
        "hardware": {"cpu": "made-up", "torch_threads": 1},
        **facts,
    }
    (folder / "provenance.json").write_text(json.dumps(facts))
    (folder / "samples.jsonl").write_bytes(b"".join(to_line(record) for record in records))
    (folder / "done").write_text("")
    return folder


def write_results(root: Path) -> Path:
    """A results folder with what every table, figure and notebook reads."""
    write_run(root / "table1", made_up_records())
    write_run(root / "fig6", made_up_records(2, methods=[("baseline", {}), *FIGURE6]), experiment="fig6")
    random = numpy.random.default_rng(1)
    scores = random.dirichlet(numpy.full(400, 0.05), size=16)
    (root / "fig2").mkdir()
    numpy.savez(root / "fig2" / "attention.npz", scores=scores, model="made-up", task="qasper", sample_id="0")
    return root
