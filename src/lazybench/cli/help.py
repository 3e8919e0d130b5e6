"""``--help``, and the lists behind it: tasks, models, methods, pruning. Nothing here imports torch."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from lazybench import __version__
from lazybench.cli.groups import config_folder, model_file, names
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
  {run} experiment=latency dry_run=true           TTFT, decoding step, memory; first only what it would take

Choices: GROUP=NAME (what each is: --help tasks, --help models, --help methods, --help pruning, --help experiments)
{choices}

Keys: KEY=VALUE (quote what holds brackets; --cfg job prints all of them as they would be used)
{keys}
  model.KEY  task.parameters.KEY  pruning.KEY   as the lists show them, as in model.dtype=bfloat16

Other commands, in a checkout: python -m lazybench ...
  lazybench experiment NAME SIZE      a table or figure of the paper, as in: fig5 mini
  lazybench report FOLDER             tables, figures and one HTML page of results
  lazybench leaderboard FOLDER        methods at matched speeds, and pairwise comparisons
  lazybench verify FOLDER             scores and columns computed again; --remeasure N measures anew
  lazybench pack FOLDER --out FILE    finished runs as one file of records
  lazybench calibrate MODEL           presets for a model, found on embedded text within minutes
  lazybench lm-eval ...               lm-eval's command line with LazyLLM as a model"""
OF_CODE = {  # experiments without a file
    **dict.fromkeys(("table2", "fig1", "fig7"), "From the runs of table1."),
    "fig6": "Figure 6: one pruning layer at five depths, five keep ratios at each.",
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


def _tasks() -> Rows:
    stored = {path.stem: path for path in sorted((config_folder() / "task").glob("*.yaml"))}
    yield "task=NAME. Without a network:"
    for name, path in stored.items():
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        parameters = node.get("task", node)["parameters"]  # needle_800 brings a key of another group
        yield name, f"{_comment(path)[0]} {_given(parameters, 'task.parameters.')}"
    yield "Several datasets, each with the same weight (from the hub, or data.root=FOLDER):"
    for name, datasets in GROUPS.items():
        yield name, f"{sum(map(samples_of, datasets)):,} samples: {' '.join(datasets)}"
    yield "One dataset (NAME_e: LongBench-E, lengths spread evenly over 0-4k, 4-8k and 8k+ words):"
    for name in DATASETS:
        extended = f", {samples_of(f'{name}_e')} as {name}_e" if f"{name}_e" in TASKS else ""
        yield name, f"{samples_of(name)} samples{extended}: {asks(name)}"
    yield "Benchmarks of longer prompts (docs/tasks.md):"
    yield "longbench_v2", "503 multiple-choice questions"
    listed = {*stored, *TASKS}
    yield from ((name, "a module's of your own") for name in names("task") if name not in listed)
    yield (
        "lm_eval/NAME",
        "any of lm-eval's generation tasks, as RULER's; your own: task.parameters.include_path=FOLDER",
    )


def _models() -> Rows:
    yield "model=NAME, or without a file: model=OWNER/NAME (hub), model=FOLDER, model=FILE.gguf"
    for path in sorted((config_folder() / "model").glob("*.yaml")):
        node = model_file(path.stem)
        limit = f", prompts up to {node.prompt_limit_tokens:,} tokens" if "prompt_limit_tokens" in node else ""
        about = " ".join(_comment(path)).partition(". ")[0]
        yield path.stem, f"{about} {node.get('hub_id', '')}{limit}".replace(" ,", ",")
    yield "KEY of model.KEY:", " ".join(field.name for field in fields(ModelSpec) if field.name != "name")


def _methods() -> Rows:
    yield "'methods=[baseline,NAME,...]', or with values: 'methods=[baseline,{method: random_drop, keep: 0.3}]'"
    for name, kind in sorted(METHODS.items()):
        documentation, preset = kind.__doc__ or "", {"pruning": "paper"} if hasattr(kind, "pruning") else {}
        numbers = re.findall(r"\b\d{4}\.\d{5}\b", documentation.partition("Source:")[2].split("\n\n")[0])
        papers = f" [arXiv {', '.join(dict.fromkeys(numbers))}]" if numbers else ""
        yield name, f"{documentation.splitlines()[0].replace('`', '')}{papers} {_given(plain(kind()) | preset)}"


def _pruning() -> Rows:
    yield "pruning=NAME"
    for name in names("pruning"):
        yield name, label("lazyllm", {"pruning": PRESETS[name]})
    documentation = textwrap.dedent("    " + (PruningSchedule.__doc__ or ""))
    yield "\npruning.KEY=VALUE"
    yield from documentation.partition("Args:\n")[2].partition("\n\n")[0].splitlines()


def _experiments() -> Rows:
    yield "experiment=NAME, with size=smoke, mini or full; what it would take: dry_run=true"
    for name in names("experiment"):
        path = config_folder() / "experiment" / f"{name}.yaml"
        yield name, " ".join(_comment(path)) if path.exists() else OF_CODE[name]


def _given(parameters: Mapping[str, Any], prefix: str = "") -> str:
    """Parameters as they are typed."""
    shown = {key: "null" if value is None else str(value).replace(" ", "") for key, value in parameters.items()}
    return " ".join(f"{prefix}{key}={value}" for key, value in shown.items())


def _comment(path: Path) -> list[str]:
    """The lines of the comment that a file begins with, Hydra's own left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line] or [""]


def _wrapped(head: str, text: str, indent: int = 24) -> str:
    """``head`` and the text beside it, in lines of a terminal's width."""
    begin = f"{head:<{indent - 1}} "
    filled = textwrap.fill(
        " ".join(text.split()), 118, initial_indent=begin, subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return filled or begin.rstrip()


LISTS = {"tasks": _tasks, "models": _models, "methods": _methods, "pruning": _pruning, "experiments": _experiments}
