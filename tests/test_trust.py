"""What is read is data: a run folder, a checkpoint or a cached reference from a stranger runs nothing.

Each way in tries to write a file; it must not be there after any of the commands that people run on others' folders.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from lazybench.errors import UserError, refuse
from lazybench.models import ModelSpec, load_model
from lazybench.report.__main__ import main as report
from lazybench.report.checks import config_of, measured_task
from lazybench.report.leaderboard import main as leaderboard
from lazybench.report.verify import main as verify
from lazybench.run.reading import read_run
from lazybench.tasks import DataSettings
from lazybench.tasks.lm_eval_task import any_lm_eval_task

COMMANDS: dict[str, Callable[[Path], int]] = {
    "report": lambda folder: report([str(folder), "--out", str(folder / "report")]),
    "leaderboard": lambda folder: leaderboard([str(folder), "--out", str(folder / "board")]),
    "verify": lambda folder: verify([str(folder), "--remeasure", "1"]),
}
TASK_FILE = """\
task: own_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: q
doc_to_target: '{{{{answer}}}}'
{added}
"""


@dataclass(frozen=True)
class Touch:
    """Unpickled, it writes the file."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def folder(small_runs: Path, tmp_path: Path) -> Path:
    """An honest run's folder beside its checkpoint, to be made a dishonest one."""
    shutil.copytree(small_runs / "model", tmp_path / "model")
    return Path(shutil.copytree(small_runs / "judged", tmp_path / "run"))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))


def write_task(folder: Path, added: str) -> None:
    """A task file of lm-eval's with a line that names code; its row is a program."""
    (folder / "own_sums.yaml").write_text(TASK_FILE.format(folder=folder, added=added))
    (folder / "rows.jsonl").write_text('{"answer": "2", "q": "1 + 1"}\n')


def include_path(folder: Path, marker: Path) -> None:
    """lm-eval's task files import what ``!function`` names."""
    code = f"from pathlib import Path\nrun = lambda *_: Path({str(marker)!r}).touch()\nrun()\n"
    (folder / "evil.py").write_text(code)
    write_task(folder, "process_results: !function evil.run")
    task = {"name": "lm_eval/own_sums", "datasets": ["lm_eval/own_sums"], "parameters": {"include_path": str(folder)}}
    _edit(folder / "config.yaml", lambda config: config.update(task=task))


def target(folder: Path, marker: Path) -> None:
    """Hydra's ``_target_``, wherever a configuration has parts."""
    call = {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [str(marker)]}]}

    def change(config: dict[str, Any]) -> None:
        for part in (config, config["model"], config["task"], config["task"]["parameters"], *config["methods"]):
            part.update(call, evil=call)
        config["methods"][1] |= {"_target_": "lazybench.methods.lazyllm.LazyLLMMethod", "pruning": call}
        config["model"]["config"] = call

    _edit(folder / "config.yaml", change)


def yaml_tag(folder: Path, marker: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(f"{path.read_text()}evil: !!python/object/apply:os.system ['touch {marker}']\n")


def pickles(folder: Path, marker: Path) -> None:
    """In every file whose format allows one."""
    numpy.savez(folder / "attention.npz", scores=numpy.array([Touch(marker)], dtype=object))
    for name in ("done", "summary.csv"):
        (folder / name).write_bytes(pickle.dumps(Touch(marker)))


def checkpoint_code(folder: Path, marker: Path) -> None:
    """A model whose files bring their own classes, a generation of their own and pickled weights."""
    model = folder / "model"
    shutil.copytree(folder.parent / "model", model)
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    (model / "evil.py").write_text(code)
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(f"{code}def generate(*_, **__): pass\n")
    for name, classes in (
        ("config.json", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Tokenizer", None]}),
    ):
        settings = json.loads((model / name).read_text())
        settings |= {"auto_map": classes, "model_type": "evil"} if name == "config.json" else {"auto_map": classes}
        (model / name).write_text(json.dumps(settings))
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Touch(marker)}))
    _edit(folder / "config.yaml", lambda config: config["model"].update(path=str(model)))


WAYS = (include_path, target, yaml_tag, pickles, checkpoint_code)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_strangers_folder_runs_nothing(folder: Path, way: Callable[[Path, Path], None], command: str) -> None:
    marker = folder.parent / "it-ran"
    way(folder, marker)
    code = COMMANDS[command](folder)
    assert not marker.exists()
    assert code in (0, 1, 2)


NESTED = "[" * 3000 + "]" * 3000
FILES = ("config.yaml", "provenance.json", "samples.jsonl")
NO_RUN_WROTE = [  # file, a part of it or "" for all, what stands there instead or None for no such file
    *((file, "", None) for file in FILES),
    ("config.yaml", "", ""),
    ("config.yaml", "", "model: {}"),
    ("provenance.json", "", "[]"),
    ("config.yaml", "shard: 0/1", "shard: 0/0"),
    ("config.yaml", "shard: 0/1", "shard: [1]"),
    ("config.yaml", "- needle", "- 5"),
    ("config.yaml", "root: null", "root: {a: 1}"),
    ("config.yaml", "limit: 2", "limit: 2\na: &a [1, 2]\nb: [*a, *a]"),  # ten such lines fill a memory
    ("config.yaml", "limit: 2", "limit: 2\na: &a [*a]"),
    ("config.yaml", "limit: 2", f"limit: 2\na: {NESTED}"),
    ("provenance.json", '"seed": 0', f'"seed": {NESTED}'),
    ("provenance.json", '"needle": {', '"other": 5, "needle": {'),
    ("samples.jsonl", '"repeat": 0', f'"repeat": 1{"0" * 30}'),
    ("samples.jsonl", '"fidelity_kl": 0.0', '"fidelity_kl": 1e999'),
    ("samples.jsonl", '"sample_id": "', '"sample_id": "\\udcff'),
    ("samples.jsonl", '"details": {', f'"details": {{"deep": {NESTED}, '),
]


@pytest.mark.parametrize(("file", "before", "after"), NO_RUN_WROTE)
def test_what_no_run_wrote_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, before: str, after: str | None
) -> None:
    text = (path := folder / file).read_text()
    assert before in text
    path.unlink()
    if after is not None:
        path.write_text(text.replace(before or text, after))
    for command in COMMANDS.values():
        assert command(folder) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert before or file in line  # a file that is gone, or another, is named


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("samples.jsonl", r'"repeat": 0', '"repeat": 1000000000'),
        ("samples.jsonl", r'"params": \{[^}]*\}+', '"params": {"pruning": "all", "keep": [[]]}'),
        ("samples.jsonl", r"(?s).*", ""),
        ("config.yaml", "repeats: 1", "repeats: 1000000000"),
        ("config.yaml", "length: 150", "length: 1000000000000"),
    ],
)
def test_numbers_that_no_run_has_are_differences(folder: Path, file: str, before: str, after: str) -> None:
    path = folder / file
    text, count = re.subn(before, after, path.read_text())
    assert count
    path.write_text(text)
    assert verify([str(folder)]) in (1, 2)


def test_a_task_of_lm_evals_is_said_to_be_unchecked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    include_path(folder, folder / "it-ran")
    samples = folder / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"task": "needle"', '"task": "lm_eval/own_sums"'))
    assert verify([str(folder)]) == 2
    assert "a task of lm-eval may run code of its own, or a prediction as a program" in capsys.readouterr().out


METRIC = "would be run as the task's metric"


@pytest.mark.parametrize(
    ("name", "added", "told"),
    [
        ("own_sums", "unsafe_code: true", "--confirm_run_unsafe_code"),
        ("own_sums", "process_results: !function metric.code_eval", METRIC),
        *((name, "", f"--confirm_run_unsafe_code|{METRIC}") for name in ("humaneval", "mbpp")),
    ],
)
def test_no_prediction_runs_and_no_file_of_the_working_folder_as_a_metric(
    name: str, added: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = tmp_path / "code_eval" / "code_eval.py"
    metric.parent.mkdir()
    metric.write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')")
    (tmp_path / "metric.py").write_text("import evaluate\ncode_eval = evaluate.load('code_eval').compute\n")
    write_task(tmp_path, added)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        any_lm_eval_task(name, DataSettings(parameters={"include_path": str(tmp_path)}))
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", ["../evil", "evil.py", "lm_eval//tmp/evil"])
def test_a_dataset_is_one_of_the_known_names(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"unknown|a task of lm-eval may run code"):
        measured_task(run := read_run(folder), name, config_of(run))


def test_a_checkpoint_brings_no_code(folder: Path) -> None:
    checkpoint_code(folder, folder / "it-ran")
    with pytest.raises(UserError, match="can't load"):
        load_model(ModelSpec("custom", path=folder / "model"))
    assert not (folder / "it-ran").exists()


def test_texts_of_a_folder_stay_texts_on_its_pages(folder: Path) -> None:
    text = "<script>alert(1)</script> {{ 7 * 191 }} $\\undefined{$ </script><b>"
    samples = folder / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    for line in lines:
        line |= {"model": f"m {text}", "prediction": text, "sample_id": line["sample_id"] + text}
        line |= {"variant": f"v {text}"} if line["method"] != "baseline" else {}
    lines[-1] |= {"error": text}
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _edit(folder / "config.yaml", lambda config: config.update(note=text))
    for command in ("report", "leaderboard"):
        COMMANDS[command](folder)
    pages = sorted(folder.rglob("*.html"))
    for path in pages:
        page = path.read_text()
        assert "1337" not in page
        assert "<script" not in page
        assert "<b>" not in page
    assert [path.name for path in pages] == ["leaderboard.html", "index.html", "index.html"]


def test_what_a_folder_holds_does_not_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = folder / "samples.jsonl"
    samples.write_text(samples.read_text().replace('"sample_id": "', '"sample_id": "\\u001b]0;evil\\u0007\\n', 1))
    assert verify([str(folder)]) == 1
    said = capsys.readouterr()
    assert "evil" in said.out
    assert not {"\x1b", "\x07"} & set(said.out + said.err)


def test_what_a_refusal_quotes_does_not_steer_it_either(capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError("a file says \x1b[2J\r\n\u2028it")
    assert str(error) == "a file says [2J it"
    assert refuse(error) == 2
    assert capsys.readouterr().err == f"lazybench: {error}\n"
