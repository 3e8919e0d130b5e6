"""What a checkpoint's files hold, as a hash over all of it: read once, then known by size and time of change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from lazybench.models.hub import SMALL_FILES

WEIGHT_FILES = ("*.safetensors", "*.bin")
SETTLED_S = 2.0  # a file changed since may change again without a new time: file systems count coarsely


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
    """sha256 of the whole file. The cache folder keeps it, so that a later start reads nothing."""
    path = path.resolve()
    state = path.stat()
    file = [str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    note = cache_root() / "sha256" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or a torn one
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["file"] == file:
            return str(kept["sha256"])
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_S * 1e9:
        temporary = note.with_suffix(f".{uuid4().hex}")
        with suppress(OSError):  # a cache that can't be written costs time alone
            note.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"file": file, "sha256": digest}), encoding="utf-8")
            temporary.replace(note)
    return digest
