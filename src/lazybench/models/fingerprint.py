"""What a checkpoint's files hold, as a hash over all of it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from lazybench.models.hub import SMALL_FILES

WEIGHT_FILES = ("*.safetensors", "*.bin")


def cache_root() -> Path:
    """``LAZYBENCH_CACHE``, or lazybench's folder under the user's cache folder."""
    if explicit := os.environ.get("LAZYBENCH_CACHE"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazybench"


def fingerprint(folder: Path) -> str:
    """sha256 over the names and hashes of a checkpoint's files: configuration, tokenizer, every shard of weights."""
    files = {path for pattern in (*SMALL_FILES, *WEIGHT_FILES) for path in folder.glob(pattern) if path.is_file()}
    for index in folder.glob("*.index.json"):  # its shards may lie anywhere
        with suppress(ValueError, AttributeError, TypeError, RecursionError):  # no index: loading says what is wrong
            shards = {folder / name for name in json.loads(index.read_bytes())["weight_map"].values()}
            files |= {path for path in shards if path.is_file()}
    lines = "".join(f"{os.path.relpath(path, folder)} {sha256_of(path)}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of the whole file, read once in a process while it stays as it is."""
    state = path.stat()
    return _sha256_of(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@cache
def _sha256_of(path: Path, *state: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
