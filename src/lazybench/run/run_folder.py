"""The folder of one run: what was asked, on what it ran, and every sample as soon as it is measured.

config.yaml              what was asked; a folder never mixes two configurations, but its limit may rise
provenance.json          code, libraries, hardware, model and data, written before the first sample
samples.jsonl            one line a record, appended and synchronised one by one
samples.failed.jsonl     lines of samples that failed and were tried again
samples.malformed.jsonl  lines that could not be read, as they were found
done                     written last: every sample was measured, or is named as failed
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lazybench.errors import UserError
from lazybench.run.files import FolderLock, append_whole, write_atomically, write_error
from lazybench.run.reading import flatten
from lazybench.run.record import Record, RecordKey, from_line, to_line

# what a run may not change halfway, beside its configuration: other weights or documents under the same name
FIXED_FACTS = ("model", "tasks")


class RunFolder:
    """A locked run folder, open for appending. Use ``RunFolder.open``; it is a context manager.

    Attributes:
        path: the folder.
        done: the records by key, in the order they were measured, in this process or an earlier one. Failed ones of
            an earlier process are not among them: they are tried again.
    """

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self.done: dict[RecordKey, Record] = {}
        self.commit: str | None = None  # of the code that measures now
        self._lock = lock
        self._samples = -1
        self._resume: dict[str, Any] | None = None  # facts of this process, to be noted before its first sample
        self._begun_with = ""  # a higher limit that an earlier process did not get to the end of

    @classmethod
    def open(cls, path: Path, config: dict[str, Any], provenance: dict[str, Any]) -> RunFolder:
        """Create the folder, or go on with it where its configuration is the same.

        Raises:
            UserError: another process works in it; it belongs to another configuration, model or data (the keys that
                differ are named); it cannot be written.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        folder = cls(path, FolderLock(path))
        folder.commit = provenance.get("commit")
        try:
            folder._start(_plain(config), _plain(provenance))
        except BaseException:
            folder.close()
            raise
        return folder

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder; every record appended is on disk already."""
        if self._samples >= 0:
            os.close(self._samples)
            self._samples = -1
        self._lock.release()

    def append(self, record: Record) -> None:
        """Add one record; when this returns, the disk has its whole line.

        Raises:
            UserError: no space left; samples.jsonl ends with the record before.
            ValueError: a record of this key is there already.
        """
        if record.key in self.done:
            raise ValueError(f"{record.key} was appended before")
        line = to_line(record)
        self._note_resume()
        append_whole(self._samples, line, self.path / "samples.jsonl")
        self.done[record.key] = from_line(line)

    def failed(self) -> list[Record]:
        """The records of samples that failed."""
        return [record for record in self.done.values() if record.error is not None]

    def finish(self) -> None:
        """Write the marker that nothing is left to measure. The last thing a run does."""
        if self._begun_with:
            _notice(f"{self.path} was begun with {self._begun_with} and is not at its end; that measures the rest")
            return
        counts = {"records": len(self.done), "failed": len(self.failed())}
        write_atomically(self.path / "done", (json.dumps(counts) + "\n").encode())

    def _start(self, config: dict[str, Any], provenance: dict[str, Any]) -> None:
        names = ("samples.jsonl", "config.yaml", "provenance.json")
        samples, config_path, facts_path = (self.path / name for name in names)
        measured = samples.exists() and samples.stat().st_size > 0
        for path in (config_path, facts_path) if measured else ():
            if not path.exists():
                raise UserError(f"{self.path} holds samples.jsonl but no {path.name}; choose another folder with out=")
        before = _read(config_path) if config_path.exists() else None
        if before is not None:
            limits = [found["limit"] for found in (before, config) if isinstance(found.get("limit"), int)]
            asked = config.get("limit")
            config["limit"] = max(limits) if len(limits) == 2 else None  # the samples of a lower one are among these
            if config["limit"] != asked and not (self.path / "done").exists():
                self._begun_with = f"limit={'null' if config['limit'] is None else config['limit']}"
            _same({**before, "limit": config["limit"]}, config, f"{self.path} was measured with another configuration")
        if measured:
            first = _read(facts_path)
            then, now = ({name: facts.get(name) for name in FIXED_FACTS} for facts in (first, provenance))
            _same(then, now, f"{self.path} was measured with another model or other data")
            self._resume = provenance
        if before != config:
            write_atomically(config_path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
        if measured:
            self._repair(samples)
        else:
            write_atomically(facts_path, _json(provenance))
            write_atomically(samples, b"")
        self._samples = self._open(samples)

    @staticmethod
    def _open(samples: Path) -> int:
        try:
            return os.open(samples, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise write_error(samples, error) from error

    def _repair(self, samples: Path) -> None:
        """Read each record; put aside what cannot be read or failed, to be run again."""
        content = samples.read_bytes()
        kept: dict[RecordKey, bytes] = {}
        malformed: list[bytes] = []
        failed: list[bytes] = []
        lines = content.split(b"\n")
        torn = lines.pop()  # b"" after a whole last line
        for line in [*lines, *([torn] if torn else [])]:
            try:
                record = from_line(line)
            except ValueError:
                malformed.append(line)
                continue
            if record.error is not None:
                failed.append(line)
            else:
                kept[record.key] = line
                self.done[record.key] = record
        repaired = b"".join(line + b"\n" for line in kept.values())
        if repaired == content:
            return
        # aside first: a crash in between leaves a line in both files, never in none
        self._put_aside("samples.malformed.jsonl", malformed)
        self._put_aside("samples.failed.jsonl", failed)
        (self.path / "done").unlink(missing_ok=True)
        write_atomically(samples, repaired)
        if malformed:
            what = "the torn last line" if malformed == [torn] else f"{len(malformed)} unreadable line(s)"
            _notice(f"{what} of {samples} moved to samples.malformed.jsonl; what is missing is measured again")
        if failed:
            _notice(f"{len(failed)} failed sample(s) of {samples} moved to samples.failed.jsonl and tried again")

    def _put_aside(self, name: str, lines: list[bytes]) -> None:
        if lines:
            path = self.path / name
            before = path.read_bytes() if path.exists() else b""
            write_atomically(path, before + b"".join(line + b"\n" for line in lines))

    def _note_resume(self) -> None:
        """Say in the provenance on what the samples from here on are measured; a finished run is open again."""
        if self._resume is None:
            return
        (self.path / "done").unlink(missing_ok=True)
        facts_path = self.path / "provenance.json"
        first = _read(facts_path)
        other = {name: value for name, value in self._resume.items() if value != first.get(name)}
        entry = {"after_records": len(self.done), "commit": self._resume.get("commit"), **other}
        first.setdefault("resumed", []).append(entry)
        write_atomically(facts_path, _json(first))
        for name in other.keys() & {"commit", "plugins", "libraries", "hardware"}:
            what = "code" if name == "commit" else name
            _notice(f"{self.path} goes on with other {what}; provenance.json says from which record on")
        self._resume = None


def _same(before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    old, new = flatten(before), flatten(now)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if differing:
        shown = "; ".join(f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in differing[:6])
        more = f"; and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise UserError(f"{what} ({shown}{more}); go back to it, or choose another folder with out=FOLDER")


def _plain(value: Any) -> dict[str, Any]:
    """As JSON gives it back, so that it compares equal after a trip through the disk."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:120]}); restore it") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no settings; restore it, or choose another folder with out=FOLDER")
    return value


def _notice(text: str) -> None:
    print(f"lazybench: {text}", file=sys.stderr)
