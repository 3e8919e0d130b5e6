"""``--help``, and the lists behind it: tasks, models, methods, pruning. Nothing here imports torch."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from lazybench import __version__
from lazybench.cli.groups import config_folder, names
from lazybench.errors import unknown_name
from lazybench.methods import METHODS, label
from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PRESETS, PruningSchedule
from lazybench.pruning.settings import plain
from lazybench.tasks.catalogue import DATASETS, GROUPS, TASKS, asks, samples_of

HELP = """lazybench {version}: LazyLLM (arXiv 2407.14057) and its rivals, timed and scored on long prompts.

  {run} limit=10                                  the embedded default: no hub, no GPU, no account
  {run} model=llama2 task=qasper                  a model on a LongBench dataset
  {run} model=OWNER/NAME task=stdlib_retrieval    any model of the hub, a folder or a .gguf file
  {run} task=longbench data.root=FOLDER           all 16, from LongBench-schema JSONL files
  {run} 'methods=[baseline,random_drop,lazyllm]' limit=20 repeats=3
  {run} 'pruning.layers=[8,18,27]' 'pruning.keep=[.7,.7,.7]'     after these 0-based layers, of what entered
  {run} -m model=llama2,xgen task=single_doc_qa,code             a sweep: every combination, one table
  {run} experiment=latency                        TTFT, decoding step, memory

Choices: GROUP=NAME (what each is: --help tasks, --help models, --help methods, --help pruning, --help experiments)
{choices}

Keys: KEY=VALUE (quote what holds brackets; --cfg job prints all of them as they would be used)
{keys}
  model.KEY  task.parameters.KEY  pruning.KEY   as the lists show them, as in model.dtype=bfloat16

Other commands, in a checkout: python -m lazybench ...
  lazybench experiment NAME SIZE      a table or figure of the paper, as in: fig5 mini
  lazybench report FOLDER             tables, figures and one HTML page of results
  lazybench leaderboard FOLDER        methods at matched speeds, each against the closest
  lazybench verify FOLDER             scores and FLOPs ratios computed again; --remeasure N measures anew
  lazybench pack FOLDER --out FILE    finished runs as one file of records
  lazybench calibrate MODEL           presets for a model, found on embedded text within minutes
  lazybench lm-eval ...               lm-eval's command line with LazyLLM as a model"""
OF_CODE = {  # choices without a file
    **dict.fromkeys(("table2", "fig1", "fig7"), "From the runs of table1."),
    "fig6": "Figure 6: one pruning layer at five depths, five keep ratios at each.",
    **{name: f"{samples_of(name)} samples: {asks(name)}" for name in TASKS if name.removesuffix("_e") in DATASETS},
    **{name: f"{sum(map(samples_of, part)):,} samples: {' '.join(part)}" for name, part in GROUPS.items()},
    "longbench_v2": "503 multiple-choice questions",
    **{name: label("lazyllm", {"pruning": preset}) for name, preset in PRESETS.items()},
}
Rows = Iterator[str | tuple[str, str]]  # a line, or a name and what is said of it


def answer_help(arguments: Sequence[str]) -> str | None:
    """The text that the arguments ask for; None: they ask for a run.

    Raises:
        UserError: a list that does not exist.
    """
    asked = next((place for place, text in enumerate(arguments) if text in ("-h", "--help")), None)
    if asked is None:
        return None
    topics = [text for text in arguments[asked + 1 :] if "=" not in text and not text.startswith("-")]
    if not topics:
        return _overview()
    topic = topics[0] if topics[0] in LISTS else f"{topics[0]}s"
    if topic not in LISTS:
        raise unknown_name("list", topics[0], LISTS)
    rows = LISTS[topic]()
    return "\n".join(row if isinstance(row, str) else _wrapped(f"  {row[0]}", row[1]) for row in rows)


def _overview() -> str:
    run = "python run.py" if Path(sys.argv[0]).name == "run.py" else "lazybench"
    shown = {group: names(group) for group in ("model", "task", "pruning", "experiment", "size")}
    shown["task"] = [name for name in shown["task"] if not name.endswith("_e")]
    shown["methods"] = sorted(METHODS)
    shown["hydra/launcher"] = ["joblib", *names("hydra/launcher")]
    choices = "\n".join(_wrapped(f"  {group}=", " ".join(known), 18) for group, known in shown.items())
    return HELP.format(version=__version__, run=run, choices=choices, keys="\n".join(_keys()))


def _keys() -> Iterator[str]:
    """The keys of conf/config.yaml with their defaults and what its comments say of them."""
    for line in (config_folder() / "config.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(?P<key>\w+): (?P<value>[^#]*?) ?(?:# (?P<comment>.*))?", line):
            setting = f"{match['key']}={match['value'] or '[NAME,...]'}"  # a list has lines of its own
            yield _wrapped(f"  '{setting}'" if "[" in setting else f"  {setting}", match["comment"] or "")
    yield _wrapped("  data.root=null", "a folder of LongBench-schema JSONL files, one per dataset; null: the hub")


def _choices(group: str) -> Rows:
    """Each choice with the comment that its file begins with."""
    yield HEADS[group]
    for name in names(group):
        path = config_folder() / group / f"{name}.yaml"
        yield name, _comment(path) if path.exists() else OF_CODE.get(name, "a module's of your own")


def _methods() -> Rows:
    yield "'methods=[baseline,NAME,...]', or with values: 'methods=[baseline,{method: random_drop, keep: 0.3}]'"
    for name, kind in sorted(METHODS.items()):
        documentation, preset = kind.__doc__ or "", {"pruning": "paper"} if hasattr(kind, "pruning") else {}
        numbers = re.findall(r"\b\d{4}\.\d{5}\b", documentation.partition("Source:")[2].split("\n\n")[0])
        papers = f" [arXiv {', '.join(dict.fromkeys(numbers))}]" if numbers else ""
        yield name, f"{documentation.splitlines()[0].replace('`', '')}{papers} {_given(plain(kind()) | preset)}"


def _given(parameters: Mapping[str, Any]) -> str:
    """Parameters as they are typed."""
    shown = {key: "null" if value is None else str(value).replace(" ", "") for key, value in parameters.items()}
    return " ".join(f"{key}={value}" for key, value in shown.items())


def _comment(path: Path) -> str:
    """The comment that a file begins with, Hydra's own left out."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines if "@package" not in line)


def _wrapped(head: str, text: str, indent: int = 24) -> str:
    """``head`` and the text beside it, in lines of a terminal's width."""
    begin = f"{head:<{indent - 1}} "
    filled = textwrap.fill(
        " ".join(text.split()), 118, initial_indent=begin, subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return filled or begin.rstrip()


HEADS = {
    "task": "task=NAME, or any of lm-eval's generation tasks: task=lm_eval/NAME; of your own: "
    "task.parameters.include_path=FOLDER",
    "model": "model=NAME, or without a file: model=OWNER/NAME (hub), FOLDER or FILE.gguf; KEY of model.KEY:\n  "
    + " ".join(field.name for field in fields(ModelSpec) if field.name != "name"),
    "pruning": "pruning=NAME, pruning.KEY=VALUE:\n"
    + textwrap.dedent("    " + (PruningSchedule.__doc__ or "")).partition("Args:\n")[2].partition("\n\n")[0],
    "experiment": "experiment=NAME, with size=smoke, mini or full",
}
LISTS: dict[str, Callable[[], Rows]] = {
    **{topic: partial(_choices, topic.removesuffix("s")) for topic in ("tasks", "models", "pruning", "experiments")},
    "methods": _methods,
}
