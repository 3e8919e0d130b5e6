"""What rows are called: methods, tasks and categories as people read them."""

from __future__ import annotations

import pandas

from lazybench.methods import title
from lazybench.report import paper
from lazybench.report.frame import settings_label

Names = dict[tuple[str, str], str]  # a method and its params to a name


def method_title(method: str, params: str = "") -> str:
    """``LazyLLM, depths=0.3,0.6,0.9 keep=0.7,0.7,0.7``"""
    text = settings_label(method, params)
    return f"{title(method)}, {text}" if text else title(method)


def short_names(rows: pandas.DataFrame) -> Names:
    """A name that is short and of its own: ``LazyLLM``, or ``LazyLLM 1`` and ``LazyLLM 2``, in the rows' order."""
    keys = list(dict.fromkeys(zip(rows["method"], rows["params"], strict=True)))
    methods = [method for method, _ in keys]
    numbers = [methods[: place + 1].count(method) for place, method in enumerate(methods)]
    return {
        key: f"{title(key[0])} {number}" if methods.count(key[0]) > 1 else title(key[0])
        for key, number in zip(keys, numbers, strict=True)
    }


def label_lines(names: Names) -> Names:
    """``LazyLLM 1: depths=0.3 keep=0.5`` for each of ``short_names`` that has settings, else the name alone."""
    labels = {key: settings_label(*key) for key in names}
    return {key: f"{name}: {labels[key]}" if labels[key] else name for key, name in names.items()}


def task_title(task: str, category: str, setting: str) -> str:
    """``needle length=900``; a category's row has no task."""
    return f"{task or category_title(category)} {setting}".strip()


def category_title(category: str) -> str:
    """The paper's title, or the name in words."""
    return paper.CATEGORY_TITLES.get(category, category.replace("_", " "))


def category_rows(summary: pandas.DataFrame) -> pandas.DataFrame:
    """One row per category, method and its settings: the category's own, or its only task's."""
    key = ["model", "setting", "category"]
    whole = summary[summary["level"] == "category"]
    covered = pandas.MultiIndex.from_frame(summary[key]).isin(pandas.MultiIndex.from_frame(whole[key]))
    return summary[(summary["level"] == "category") | ~covered]


def with_setting(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The same rows, each setting a model of its own: for figures and tables that stand for models."""
    return rows.assign(model=(rows["model"] + " " + rows["setting"]).str.strip(), setting="") if len(rows) else rows


def timed(rows: pandas.DataFrame) -> bool:
    """Whether any of a summary's rows has a time, relative to the baseline's."""
    return "ttft_speedup" in rows and bool(rows["ttft_speedup"].notna().any())
