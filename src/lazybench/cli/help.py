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
from lazybench.cli.groups import config_folder, method_nodes, model_file, names
from lazybench.errors import unknown_name
from lazybench.methods import METHODS, label
from lazybench.models.spec import ModelSpec
from lazybench.pruning.schedule import PRESETS, PruningSchedule
from lazybench.tasks.catalogue import CHOICES, DATASETS, GROUPS, asks, samples_of

HELP = """lazybench {version}: LazyLLM and its rivals, timed and scored on long prompts.

  {run}                                           the embedded default: no hub, no GPU, no account
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
  model.KEY  task.parameters.KEY  method.NAME.KEY  pruning.KEY   as the lists show them, as in model.dtype=bfloat16"""
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
    shown["task"] = [name for name in shown["task"] if not name.endswith("_e") and not _one_of_many(name)]
    shown["methods"] = list(METHODS)
    shown["hydra/launcher"] = ["joblib", *names("hydra/launcher")]
    choices = "\n".join(_wrapped(f"  {group}=", " ".join(known), 18) for group, known in shown.items())
    return HELP.format(version=__version__, run=run, choices=choices, keys="\n".join(_keys()))


def _keys() -> Iterator[str]:
    """The keys of conf/config.yaml with their defaults and what its comments say of them."""
    for line in (config_folder() / "config.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(?P<key>\w+): (?P<value>.+?)(?: # (?P<comment>.*))?", line):
            value = f"'{match['key']}={match['value']}'" if "[" in line else f"{match['key']}={match['value']}"
            yield _wrapped(f"  {value.replace(', ', ',')}", match["comment"] or "")
    yield _wrapped("  data.root=null", "a folder of LongBench-schema JSONL files, one per dataset; null: the hub")


def _tasks() -> Rows:
    yield "task=NAME (docs/tasks.md); NAME_e: LongBench-E, lengths spread evenly over 0-4k, 4-8k and 8k+ words"
    for name in names("task"):
        path = config_folder() / "task" / f"{name}.yaml"
        dataset = name.removesuffix("_e")
        if path.exists():
            yield name, f"{_comment(path)[0]} {_given(_parameters(path), 'task.parameters.')}"
        elif name in GROUPS:
            yield name, f"{sum(map(samples_of, GROUPS[name])):,} samples: {' '.join(GROUPS[name])}"
        elif dataset in DATASETS:
            yield name, f"{samples_of(name)} samples: {asks(dataset)}"
        else:
            node = CHOICES.get(name, {"datasets": [], "parameters": {}})
            yield name, f"{' '.join(node['datasets'])} {_given(node['parameters'], 'task.parameters.')}"
    yield "lm_eval/NAME", "any of lm-eval's generation tasks; your own: task.parameters.include_path=FOLDER"


def _models() -> Rows:
    yield "model=NAME, or without a file: model=OWNER/NAME (hub), model=FOLDER, model=FILE.gguf"
    for name in names("model"):
        if (path := config_folder() / "model" / f"{name}.yaml").exists():
            yield name, f"{' '.join(_comment(path)).partition('. ')[0]} {model_file(name).get('hub_id', '')}"
    yield "KEY of model.KEY:", " ".join(field.name for field in fields(ModelSpec) if field.name != "name")


def _methods() -> Rows:
    yield "'methods=[baseline,NAME,...]', or with values: 'methods=[baseline,{method: random_drop, keep: 0.3}]'"
    for name, node in method_nodes().items():
        documentation = METHODS[name].__doc__ or ""
        numbers = re.findall(r"\b\d{4}\.\d{5}\b", documentation.partition("Source:")[2].split("\n\n")[0])
        papers = f" [arXiv {', '.join(dict.fromkeys(numbers))}]" if numbers else ""
        yield name, f"{documentation.splitlines()[0].replace('`', '')}{papers} {_given(node)}"


def _pruning() -> Rows:
    yield "pruning=NAME, and pruning.KEY=VALUE over it"
    for name, preset in PRESETS.items():
        yield name, label("lazyllm", {"pruning": preset})
    documentation = textwrap.dedent("    " + (PruningSchedule.__doc__ or ""))
    yield from documentation.partition("Args:\n")[2].partition("\n\n")[0].splitlines()


def _experiments() -> Rows:
    yield "experiment=NAME, with size=smoke, mini or full (docs/reproduce_the_paper.md); its cost: dry_run=true"
    for name in names("experiment"):
        path = config_folder() / "experiment" / f"{name}.yaml"
        yield name, " ".join(_comment(path)[1:]) if path.exists() else ""


def _parameters(path: Path) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["parameters"]
    return parameters


def _one_of_many(task: str) -> bool:
    """A single task of RULER: in the list, but too many for the overview."""
    return task.startswith("ruler_") and task != "ruler_embedded"


def _given(parameters: Mapping[str, Any], prefix: str = "") -> str:
    """Parameters as they are typed."""
    shown = {key: "null" if value is None else str(value).replace(" ", "") for key, value in parameters.items()}
    return " ".join(f"{prefix}{key}={value}" for key, value in shown.items())


def _comment(path: Path) -> list[str]:
    """The lines of the comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")] or [""]


def _wrapped(head: str, text: str, indent: int = 24) -> str:
    """``head`` and the text beside it, in lines of a terminal's width."""
    begin = f"{head:<{indent - 1}} "
    filled = textwrap.fill(
        " ".join(text.split()), 118, initial_indent=begin, subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return filled or begin.rstrip()


LISTS = {"tasks": _tasks, "models": _models, "methods": _methods, "pruning": _pruning, "experiments": _experiments}
