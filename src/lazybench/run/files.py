"""Files that are whole or absent, and the lock of a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lazybench.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, in a folder that is made: a crash at any moment leaves the old file or the new one.

    Raises:
        UserError: no space left, or not writable; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def append_whole(descriptor: int, content: bytes, path: Path) -> None:
    """Append to an open file and wait until the disk has it; on failure the file is as it was before.

    Raises:
        UserError: no space left, or another error of the file system.
    """
    size = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(content):  # a nearly full disk takes a part first and refuses the rest
            written += os.write(descriptor, content[written:])
        os.fsync(descriptor)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise write_error(path, error) from error


def without_folders(value: Any) -> Any:
    """Absolute paths cut to their last part: they name people and machines, and what is stored is passed on."""
    if isinstance(value, Mapping):
        return {str(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, str | Path) and (Path(value).is_absolute() or str(value).startswith("~/")):
        return Path(value).name
    if isinstance(value, str):
        return re.sub(r"(?<![\w:/.])(?:/[\w.\-+@ ]+)+/(?=[\w.\-])", "", value)
    return value


def write_error(path: Path, error: OSError) -> UserError:
    """The one line for a file that could not be written."""
    if error.errno in NO_SPACE:
        return UserError(
            f"no space left to write {path}; what was measured before is kept: "
            "free some space, and the same command goes on from there"
        )
    return UserError(f"cannot write {path}: {error.strerror or error}")


class FolderLock:
    """An exclusive lock on a folder. The kernel drops it with the process that holds it, kill -9 included."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            UserError: another process holds it (its pid is named), or the file system has no locks.
        """
        path = folder / ".lock"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UserError(
                    f"{folder} is in use by another process (pid {holder or 'unknown'}); "
                    "wait for it, stop it, or choose another folder with out=FOLDER"
                ) from None
            raise UserError(f"{folder} cannot be locked ({error.strerror}); choose a file system with locks") from error
        # on a full disk the pid alone is missing: the lock itself needs no space
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others in; the file stays, because removing it would let two processes lock two different files."""
        os.close(self._descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
