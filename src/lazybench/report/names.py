"""What rows are called: methods, tasks and categories as people read them."""

from __future__ import annotations

import pandas

from lazybench.methods import title
from lazybench.report import paper
from lazybench.report.frame import method_order, settings_label

Names = dict[tuple[str, str], str]  # a method and its params to a name


def method_title(method: str, params: str = "") -> str:
    """``LazyLLM, depths=0.3,0.6,0.9 keep=0.7,0.7,0.7``"""
    return titled(method, settings_label(method, params))


def titled(method: str, text: str) -> str:
    """The same with a text of one's own beside the name."""
    return f"{title(method)}, {text}" if text else title(method)


def short_names(rows: pandas.DataFrame) -> Names:
    """A name that is short and of its own: ``LazyLLM``, or ``LazyLLM 1`` and ``LazyLLM 2``."""
    keys = sorted(dict.fromkeys(zip(rows["method"], rows["params"], strict=True)), key=lambda key: method_order(*key))
    methods = [method for method, _ in keys]
    names = {}
    for place, (method, params) in enumerate(keys):
        number = f" {1 + methods[:place].count(method)}" if methods.count(method) > 1 else ""
        names[method, params] = title(method) + number
    return names


def settings_lines(names: Names) -> list[str]:
    """``LazyLLM 1: depths=0.3 keep=0.5``, for each of ``short_names`` that has settings."""
    labels = {name: settings_label(*key) for key, name in names.items()}
    return [f"{name}: {label}" for name, label in labels.items() if label]


def task_title(task: str, category: str, setting: str) -> str:
    """``needle length=900``; a category's row has no task."""
    return f"{task or category_title(category)} {setting}".strip()


def category_title(category: str) -> str:
    """The paper's title, or the name in words."""
    return paper.CATEGORY_TITLES.get(category, category.replace("_", " "))


def category_titles(rows: pandas.DataFrame) -> dict[str, str]:
    """The paper's six categories where one of them was measured, then any other (embedded tasks, lm-eval's)."""
    measured = list(dict.fromkeys(rows["category"]))
    papers = list(paper.CATEGORY_TITLES) if set(measured) & set(paper.CATEGORY_TITLES) else []
    return {name: category_title(name) for name in [*papers, *(name for name in measured if name not in papers)]}


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
