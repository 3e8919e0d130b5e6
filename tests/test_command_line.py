"""What is answered without torch: help, lists, names that stand for models and tasks; and the package as installed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, RunPy, python, run_environment

from lazybench import __version__
from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import composed, names
from lazybench.cli.help import answer_help
from lazybench.cli.main import MODULES, main
from lazybench.errors import UserError
from lazybench.methods import METHODS
from lazybench.models.fingerprint import cache_root
from lazybench.report.__main__ import main as report_main
from lazybench.run.config import RunConfig
from lazybench.tasks import DataSettings

WITHOUT_TORCH = """
import contextlib, io, json, sys
sys.modules.update(torch=None, transformers=None)
from lazybench.cli.main import main
found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main()
    found.append([code, out.getvalue(), errors.getvalue()])
print(json.dumps(found))
"""
ANSWERED = (["--help"], ["--help", "tasks"], ["--help", "methods"], ["--help", "experiments"], ["--version"])
OTHER_FILES = (  # Hydra's ways to read them
    *("--config-dir=D", "--config-d=D", "--config-path=D", "--config-name=N", "-cd=D", "-cp=D"),
    *("--experimental-rerun=P", "hydra.searchpath=[file:///tmp]", "++hydra.searchpath=[/tmp]"),
    *("hydra={searchpath:[/tmp]}", "hydra/launcher=../../own", "hydra/sweeper=/tmp/own", "+hydra/callbacks=~/own"),
    *("hydra/../own=x", "+/tmp/own=x", 'pruning="../../own"', 'model="/tmp/own"', "model=choice(smollm2,../../own)"),
)
REFUSED = (  # what is typed, words of the line that answers it
    ("task=qaspr", "did you mean qasper or qasper_e? `--help tasks` lists them"),
    ("model=lama2", "lama2", "llama2"),
    ("model=nobody/", "nobody/"),
    ("model=/nonexistent", "no checkpoint at /nonexistent"),
    ("model.dtype=float7", "float7"),
    ("experiment=latncy", "latncy", "latency"),
    ("experiment=fig5 experiment_size=fig5_tiny", "fig5_tiny", "fig5_mini"),
    ("--foo", "unrecognized arguments: --foo", "--help"),
    ("--help taks", "did you mean tasks"),
    ("--cfg x", "--cfg/-c", "'x'", "job"),
    *((way, "could name code") for way in OTHER_FILES),
    ("+model._target_=os.getcwd", "unknown key", "_target_"),
    ("+pruning._target_=os.getcwd", "unknown key", "_target_"),
    ("+data._target_=a.b", "unknown key", "_target_"),
    ("+method=/tmp/own", "unknown key", "method"),
    ("methods=[{method: lazyllm, _target_: os.getcwd}]", "unknown key", "_target_"),
    ("limit=0", "limit=0", "at least 1"),
    ("limit=${nope}", "nope", "not found"),
    ("limt=3", "limt", "limit"),
    ("limit=[1", "'limit=[1'", "in quotes"),
    ("out=it's", "can't be read: ' is not closed;"),
    ("data.rot=x", "data.rot", "data.root"),
    ("task.parameters.lenght=3", "task.parameters.length"),
    ("task=lm_eval", "task=lm_eval/gsm8k"),
    ("task.datasets=[]", "task.datasets=[qasper]"),
    ("task=plain_text task.datasets=[plain_text_99999999]", "plain_text_99999999", "plain_text_3500"),
    ("task=plain_text task.datasets=[plain_text]", "plain_text_3500"),
    ("task=plain_text task.datasets=[plain_text_0]", "plain_text_3500"),
    ("task=plain_text task.datasets=[plain_text_x]", "plain_text_3500"),
    ("tag=one out=out", "tag=one", "out=", "give one"),
    ("tag=a/b", "tag=a/b", "letters"),
    ("shard=4/4", "shard=4/4"),
    ("tracker=mlflow", "mlflow", "wandb"),
    ("plugins=[no_such_module]", "no_such_module", "cannot be imported"),
    ("timing=false fidelity=false", "leave nothing to measure"),
    ("pruning=none.yaml", "none.yaml", "preset: none.yaml@NAME"),
    ("methods=[{method: lazyllm, pruning: own.yaml}]", "method: lazyllm, preset: own.yaml@NAME"),
    ("pruning.keep=[0.5]", "pruning.keep"),
    ("pruning.layers=[3,2] pruning.keep=[0.5,0.5]", "[3, 2]", "rise"),
    ("pruning.revival=8", "pruning.revival=8", "some of: most"),
    ("methods=[baseline,lazylm]", "lazylm", "lazyllm"),
    ("methods=[baseline,{method: lazyllm, pruning: null}]", "lazyllm.pruning=null", "some of: layers"),
    ("methods=[{method: lazyllm, prunning: paper}]", "did you mean pruning"),
    ("methods=[{lazyllm: {revive: false}}]", "names no method"),
    ("methods=[{method: taper, keep: 3}]", "taper.keep=3 must be a list of numbers in brackets, or null"),
    ("methods=[{method: taper, preset: smollm2}]", "did you mean smollm2@2x"),
    ("methods=[{method: taper, preset: smollm2@9x}]", "did you mean smollm2@"),
    ("methods=[baseline,{method: snapkv, keep: 0.5}", "can't be read: [ is not closed;"),
    ("method.random_drop.keep=0.7", "'methods=[baseline,{method: NAME, KEY: VALUE}]'"),
    ("compare a", "unknown command 'compare'; Known: calibrate"),
    ("reprot nothing", "did you mean report"),
    ("calibrate tokens=500", "which model"),
    ("calibrate smollm2 tokens", "KEY=VALUE"),
    ("calibrate smollm2 tokens=0", "tokens=0"),
    ("calibrate smollm2 speeds=[0.9]", "above 1"),
    ("calibrate smollm2 token=500", "did you mean tokens"),
    ("calibrate smollm2 method=fastkv", "lazyllm, taper"),
    ("calibrate smolm2", "did you mean smollm2"),
    ("experiment", "smoke, mini, full"),
    ("experiment fig6", "smoke, mini, full"),
    ("experiment fig8 smoke", "fig6"),
    ("experiment fig6 tiny", "'tiny'"),
    ("experiment fig6 smoke modl=llama2", "model"),
    ("experiment fig6 smoke limit=0", "limit=0"),
)


def configured(*overrides: str) -> RunConfig:
    return run_config(composed(prepare(overrides)))


def test_help_and_bad_values_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    """With torch out of reach the answer is the same: importing it takes seconds."""
    typed = [[row[0]] if row[0].startswith("methods=") else row[0].split() for row in REFUSED]
    done = python("-c", WITHOUT_TORCH, json.dumps([*ANSWERED, *typed]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for code, said, errors in found[: len(ANSWERED)]:
        assert (code, errors) == (0, "")
        assert said
    for (asked, *words), (code, _, errors) in zip(REFUSED, found[len(ANSWERED) :], strict=True):
        assert code == 2, asked
        (line,) = errors.splitlines()
        assert line.startswith("lazybench: ")
        assert len(line) < 300
        assert all(word in line for word in words), line
        assert "torch" not in line


def test_help_fits_two_screens_and_names_every_choice() -> None:
    text = answer_help(["--help"])
    assert text is not None
    lines = text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    words = set(text.split())
    for group in ("model", "pruning", "experiment", "size"):
        assert set(names(group)) <= words
    assert all(f"lazybench {name} " in text for name in MODULES)
    assert " ".join(sorted(METHODS)) in " ".join(text.split())
    assert "=#" not in text


def test_every_list_has_every_name() -> None:
    for topic, expected in (("tasks", names("task")), ("models", names("model")), ("pruning", names("pruning"))):
        text = answer_help(["--help", topic]) or ""
        assert set(expected) <= set(text.replace(":", " ").replace(",", " ").split())


def test_a_model_in_one_word() -> None:
    spec = configured("model=nobody/Some-Model.v2").model
    assert (spec.name, spec.hub_id, spec.chat_format) == ("Some-Model.v2", "nobody/Some-Model.v2", "tokenizer")
    # a hub id that a file of conf/model knows comes with its chat format and limit
    known = configured("model=meta-llama/Llama-2-7b-chat-hf").model
    assert (known.name, known.chat_format, known.prompt_limit_tokens) == ("llama2", "llama2", 3500)
    # and one whose 4-bit file is embedded is still the hub's
    hub = configured("model=HuggingFaceTB/SmolLM2-135M-Instruct").model
    assert (hub.embedded, hub.hub_id) == (None, "HuggingFaceTB/SmolLM2-135M-Instruct")
    told = configured("model.hub_id=nobody/Other").model  # beside the default, which is embedded
    assert (told.embedded, told.hub_id, told.config) == (None, "nobody/Other", {})
    random = configured("model=nobody/Other", "model.weights=random").model
    assert random.weights == "random"


def test_a_folder_or_a_file_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "small.Q4_1.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert configured("model=my model").model.path == folder
    (tmp_path / "modèle").symlink_to(folder)
    assert configured("model=modèle", f"data.root={tmp_path}/modèle").data.root == tmp_path / "modèle"
    spec = configured("model=./small.Q4_1.gguf").model
    assert (spec.name, spec.path) == ("small.Q4_1", tmp_path / "small.Q4_1.gguf")
    for missing in ("model=./nothing", "model=other.gguf", f"model={tmp_path}"):
        with pytest.raises(UserError, match="no checkpoint at"):
            configured(missing)
    elsewhere = tmp_path / "elsewhere" / "my model"
    elsewhere.mkdir(parents=True)
    (elsewhere / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="two checkpoints named my model"):
        prepare([f"model={folder},{elsewhere}"])


def test_tasks_of_lm_eval_can_be_swept() -> None:
    assert prepare(["task=lm_eval/gsm8k,lm_eval/triviaqa,qasper"]) == ["task=lm_eval/gsm8k,lm_eval/triviaqa,qasper"]
    assert configured("task=lm_eval/triviaqa").datasets == ("lm_eval/triviaqa",)
    assert configured("task=lm_eval/gsm8k").task_name == "lm_eval/gsm8k"


def test_pruning_options_from_the_command_line() -> None:
    (method,) = configured("methods=[lazyllm]", "pruning.revive=false", "pruning.ratio_of=context").methods
    assert method.label == "depths=0.3,0.6,0.9 keep=0.7,0.7,0.7 ratio_of=context revive=false"
    (method,) = configured("methods=[lazyllm]", "pruning.layers=[3,9]", "pruning.keep=[0.5,0.5]").methods
    assert method.label == "layers=3,9 keep=0.5,0.5"


@pytest.mark.slow
def test_the_wheel_runs_from_any_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Built without a network, unpacked into an empty folder, and run where no checkout is."""
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", "."], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*command, "-w", str(tmp_path)], cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("lazybench-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        archive.extractall(site)
    package = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    configs = {f"lazybench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert package | configs <= packed
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    quick = ("task=needle", "limit=1", "task.parameters.length=150", "max_new_tokens=4", "methods=[baseline,lazyllm]")
    asked = ("-m", "lazybench", f"model={tiny_checkpoint}", *quick, "tag=first")
    done = python(*asked, cwd=elsewhere, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "results" / "runs" / "first" / "done").exists()


@pytest.mark.parametrize("name", [None, *MODULES])
def test_every_command_says_its_version(name: str | None, command: RunPy) -> None:
    done = command(*([name] if name else []), "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lazybench {__version__}\n", "")


def test_one_front_for_every_command(command: RunPy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm
    overview = python("-m", "lazybench", cwd=tmp_path)
    assert overview.returncode == 0
    alone = command()
    assert alone.returncode == 0
    for said in (overview.stdout.splitlines(), alone.stdout.replace("python run.py", "lazybench").splitlines()):
        assert said[0].startswith(f"lazybench {__version__}: ")
        assert all(any(line.startswith(f"  lazybench {name} ") for line in said) for name in MODULES)
    for arguments, words in (
        *(((name, place), f"no run in {place}") for name in ("report", "leaderboard") for place in ("nothing", ".")),
        (("verify", "nothing"), "nothing"),
        (
            ("plugins=[broken_module]",),
            "plugins=[broken_module] cannot be imported, from this folder or elsewhere: Zero",
        ),
        (("calibrate", "smollm2", "model.weights=random"), "real weights"),
        (("-m", "hydra/launcher=slurm", "limit=1,2"), "lazybench: hydra/launcher=slurm: no sbatch here"),
    ):
        done = command(*arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert done.stderr.startswith("lazybench: ")
        assert words in done.stderr


@pytest.mark.parametrize("command", [["--help", "tasks"], ["pack", "--help"]], ids=str)
def test_a_reader_that_has_seen_enough_is_no_error(command: list[str]) -> None:
    """As ``| head -1``: no traceback, now or at the interpreter's end."""
    asked = [sys.executable, "-m", "lazybench", *command]
    given = {"env": run_environment(), "cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(asked, **given) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_terminal_that_cannot_show_a_character_ends_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's table and progress, and every command on its folder, with a model's name that no such terminal shows.

    What the commands make goes where the home folder is.
    """
    run = [
        "model=custom", f"model.path={tiny_checkpoint}", "model.name=modèle", "out=run",
        "limit=1", "task=needle", "task.parameters.length=150", "max_new_tokens=4", "methods=[baseline,lazyllm]",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    commands = ([name, "run", "--out", f"~/{name}"] for name in ("report", "leaderboard"))
    for arguments in (run, *commands, ["verify", "~/run"], ["--help", "tasks"], [*run, "limit=è"]):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        assert main() == (2 if "limit=è" in arguments else 0)
        sys.stdout.seek(0)
        assert "mod?le" in sys.stdout.read() or arguments is not run
    assert (tmp_path / "report").is_dir()
    assert (tmp_path / "leaderboard").is_dir()


def test_every_path_option_expands_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = "method: lazyllm\npresets: {own: {params: {pruning: {layers: [3], keep: [0.5]}}}}\n"
    (tmp_path / "own.yaml").write_text(settings, encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    run = configured(
        "out=~/out", "data.root=~/data", "model.path=~/model",
        "task=lm_eval/gsm8k", "task.parameters.include_path=~/tasks",
        "methods=[{method: lazyllm, preset: '~/own.yaml@own'}]",
    )  # fmt: skip
    paths = [run.out, run.data.root, run.model.path, Path(run.data.parameters["include_path"])]
    assert paths == [tmp_path / name for name in ("out", "data", "model", "tasks")]
    assert run.methods[0].label == "layers=3 keep=0.5"
    assert configured("model=~/model").model.path == tmp_path / "model"
    assert prepare(["hydra.sweep.dir=~/sweep"]) == [f"hydra.sweep.dir={tmp_path}/sweep"]
    monkeypatch.setenv("LAZYBENCH_CACHE", "~/cache")
    assert cache_root() == tmp_path / "cache"
    assert DataSettings(root=Path("~/data")).root == tmp_path / "data"
    assert report_main(["~/nothing"]) == 2
    with pytest.raises(UserError, match="no such user"):
        configured("out=~nobody_of_that_name/out")
