"""Shared by the tests: a tiny real Llama checkpoint, and run.py as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent

# started in a shell's background, the tests and what they start would ignore Ctrl-C, which some of them send
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# a busy machine is no failure: no example is timed
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def save_tiny_checkpoint(folder: Path) -> Path:
    """A 4-layer Llama with random weights and a byte-level BPE tokenizer trained on real text."""
    from pydoc_data.topics import topics

    from tiny_checkpoints import save_llama
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([topics[name] for name in sorted(topics)[:10]], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=2048
    )
    fast.save_pretrained(folder)
    return save_llama(folder, 512, 2048, num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-llama")


@pytest.fixture(scope="session")
def llama2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_checkpoints import save_llama2

    return save_llama2(tmp_path_factory.mktemp("checkpoint") / "tiny-llama2")


RunPy = Callable[..., subprocess.CompletedProcess[str]]


def run_environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def python(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """The interpreter as a process of its own."""
    command, environment = [sys.executable, *arguments], {**run_environment(), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="session")
def run_py() -> RunPy:
    """``run_py("task=needle", ...)``: the real command, its exit code and what it printed."""
    return lambda *overrides, **where: python(str(ROOT / "run.py"), *overrides, **where)


QUICK = ("task=needle", "task.parameters.length=150", "max_new_tokens=4", "model.dtype=float32")
LAZY = "{method: lazyllm, pruning: {layers: [1], keep: [0.3]}}"


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory, run_py: RunPy) -> Path:
    """A run with a clock, ``timed``, one without, ``judged``, and their checkpoint, ``model``."""
    root = tmp_path_factory.mktemp("runs")
    save_tiny_checkpoint(root / "model")
    methods = f"methods=[baseline,{LAZY},{{method: first_last, keep: 0.5}},taper,random_drop]"
    for name, settings in (("timed", ()), ("judged", ("timing=false",))):
        small = ("model=custom", f"model.path={root}/model", *QUICK, "limit=2", "warmup=0", methods)
        done = run_py(*small, *settings, f"out={root}/{name}")
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, of 64 KiB or the size that a test gives."""
    disk, size = tmp_path / "disk", getattr(request, "param", "64k")
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small tmpfs needs root: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunPy:
    """As ``run_py``, in this process and from an empty folder: sooner by all that a process imports."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        from lazybench.cli.main import main

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        capsys.readouterr()
        code = main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run
