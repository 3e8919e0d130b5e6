"""The choices ``task=`` has for RULER, LongBench v2 and InfiniteBench, as conf/task has them for the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lazybench.tasks.categories import LONGBENCH_V2, RULER, RULER_EMBEDDED

# lm-eval's own task files, run as they are; it has no math_calc
INFINITEBENCH = (
    "passkey",
    "number_string",
    "kv_retrieval",
    "code_run",
    "code_debug",
    "math_find",
    "longdialogue_qa_en",
    "longbook_qa_en",
    "longbook_sum_en",
    "longbook_choice_en",
    "longbook_qa_chn",
)
LENGTH = {"length": 4096}  # prompt and generation together, in tokens of the model


def _in(groups: Iterable[tuple[str, ...]]) -> list[str]:
    return [name for names in groups for name in names]


def _choices() -> dict[str, dict[str, Any]]:
    official, embedded = _in(RULER.values()), _in(RULER_EMBEDDED.values())
    without_download = [f"{name}_embedded" if f"{name}_embedded" in embedded else name for name in official]
    ruler = {"ruler": official, "ruler_embedded": without_download, **{name: [name] for name in [*official, *embedded]}}
    others = {name: [name] for name in ("longbench_v2", *LONGBENCH_V2)}
    others["infinitebench"] = [f"lm_eval/infinitebench_{name}" for name in INFINITEBENCH]
    return {
        name: {"name": name, "datasets": datasets, "parameters": dict(LENGTH) if name in ruler else {}}
        for name, datasets in {**ruler, **others}.items()
    }


CHOICES: dict[str, dict[str, Any]] = _choices()
