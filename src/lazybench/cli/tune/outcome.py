"""What a search leaves in its folder.

front.csv                 every trial, the Pareto front first
best.yaml                 for each speed the settings that lose least, in the form that ``methods=[...]`` takes
confirmation-of-<trials>  an ordinary run of these for each model, on prompts that no trial has seen, with LazyLLM at
                          the paper's layers and many keep ratios beside them
confirmation.csv          how the two compare at the same FLOPs ratio
references                the plain model's answers
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import pandas
import yaml

from lazybench.cli.tune.judging import Found
from lazybench.errors import UserError
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.lazyllm import LazyLLMMethod
from lazybench.pruning.schedule import DEPTHS, PruningSchedule
from lazybench.report.curves import curves_of
from lazybench.report.frame import settings_label
from lazybench.report.results import load
from lazybench.report.statistics import compare_divergences
from lazybench.run.config import RunConfig
from lazybench.run.files import write_atomically
from lazybench.run.runner import run

KEEP_BESIDE = (0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.03)  # LazyLLM's, from 1.3x to almost its 3.3x


@dataclass(frozen=True)
class Tried:
    """One trial: a method's settings and what they are worth, geometric means over the models."""

    number: int
    kl: float  # nats
    flops_ratio: float
    on_front: bool
    models: Mapping[str, Found]  # each model's own numbers
    method: Method


def write_front(out: Path, tried: Sequence[Tried]) -> None:
    """front.csv: the Pareto front first, the slowest first; each model's own numbers behind the means."""
    rows = [
        {
            "trial": one.number,
            **{name: getattr(one, name) for name in ("on_front", "flops_ratio", "kl")},
            "settings": one.method.label,
            **{f"{model} {name}": value for model, found in one.models.items() for name, value in found.items()},
        }
        for one in sorted(tried, key=lambda one: (not one.on_front, one.flops_ratio))
    ]
    _write_table(out / "front.csv", pandas.DataFrame(rows))


def best_at(speedups: Sequence[float], tried: Sequence[Tried]) -> dict[float, Tried]:
    """For each FLOPs ratio that some trial reaches: of those at that ratio or above the one of the lowest divergence.

    Raises:
        UserError: none reaches any of them.
    """
    found = {}
    for speedup in sorted(speedups):
        reached = [one for one in tried if one.flops_ratio >= speedup - 1e-9]
        if reached:
            found[speedup] = min(reached, key=lambda one: (one.kl, -one.flops_ratio))
    if not found:
        raise UserError(
            f"none of {len(tried)} trials reaches a FLOPs ratio of {min(speedups):g}; all are in front.csv; "
            "raise tune.trials= or lower tune.least_keep="
        )
    return found


def write_best(out: Path, best: Mapping[float, Tried]) -> None:
    """best.yaml: ``2: {method: taper, depths: [...], ...}``."""
    text = ""
    for speedup, one in best.items():
        method: Any = one.method  # a dataclass, which its base need not be
        entry = {"method": method.name, **json.loads(json.dumps(asdict(method)))}  # lists in place of tuples
        line = yaml.safe_dump(entry, default_flow_style=True, width=10_000, sort_keys=False)
        text += f"# trial {one.number}: FLOPs ratio {one.flops_ratio:.2f}, KL divergence {one.kl:.3g} nats\n"
        text += f"{speedup:g}: {line}"
    write_atomically(out / "best.yaml", text.encode())


def confirm(models: Sequence[RunConfig], best: Mapping[float, Tried], shard: tuple[int, int]) -> int:
    """Measure what was found on the prompts left out, beside LazyLLM, and write confirmation.csv.

    Returns:
        the exit code of the measurements.
    """
    out, found = models[0].out, [one.method for one in best.values()]
    beside = [LazyLLMMethod(PruningSchedule(depths=DEPTHS, keep=(keep,) * 3)) for keep in KEEP_BESIDE]
    methods = {f"{one.name} {one.label}".strip(): one for one in (Baseline(), *found, *beside)}
    folder = out / f"confirmation-of-{'-'.join(map(str, sorted({one.number for one in best.values()})))}"
    how: dict[str, Any] = {"tune": None, "timing": False, "fidelity": True, "scoring": False}
    code = 0
    for config in models:
        resolved = {**config.resolved, **how, "shard": f"{shard[0]}/{shard[1]}", "methods": list(methods)}
        confirmation = replace(
            config,
            **how,
            methods=tuple(methods.values()),
            data=replace(config.data, shard=shard),
            references=config.references or out / "references",
            out=folder / config.model.name,
            resolved=resolved,
        )
        code = max(code, run(confirmation))
    table = compared(folder, {(one.name, json.dumps(one.params, sort_keys=True)) for one in found})
    _write_table(out / "confirmation.csv", table)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    print(f"settings for methods=[...]: {out / 'best.yaml'}; every trial: {out / 'front.csv'}")
    return code


def compared(folder: Path, chosen: set[tuple[str, str]]) -> pandas.DataFrame:
    """For each model and each chosen (method, label): its divergence over LazyLLM's at the same FLOPs ratio, paired.

    ``kl_ratio``: below 1 the settings follow the plain model more closely. Empty where LazyLLM doesn't reach the ratio.

    Raises:
        UserError: no sample was measured.
    """
    rows = []
    for model, samples in load([folder]).samples.groupby("model", sort=False):
        curves = curves_of(samples)
        found_too = [pair in chosen for pair in zip(samples["method"], samples["params"], strict=True)]
        papers = [curve for curve in curves_of(samples[~numpy.array(found_too)]) if curve.method == "lazyllm"]
        paper = max(papers, key=lambda curve: len(curve.speeds), default=None)
        for curve in curves:
            for speed, params, own in zip(curve.speeds, curve.params, curve.settings, strict=True):
                if (curve.method, params) not in chosen or paper is None:
                    continue
                one, other = own["fidelity_kl"].align(paper.at(speed)["fidelity_kl"], join="inner")
                found = compare_divergences(one, other)
                ratio = {"kl_ratio": found.estimate.value, "low": found.estimate.low, "high": found.estimate.high}
                row = {"model": model, "flops_ratio": speed, **ratio}
                rows.append(
                    {
                        **row,
                        "n": found.samples,
                        "p_sign": found.p_sign,
                        "settings": settings_label(curve.method, params),
                    }
                )
    if not rows:
        raise UserError("every sample that was to confirm the settings failed; the records name the errors")
    return pandas.DataFrame(rows).sort_values(["model", "flops_ratio"], kind="stable", ignore_index=True)


def _write_table(path: Path, table: pandas.DataFrame) -> None:
    write_atomically(path, table.to_csv(index=False, float_format="%.6g").encode())
