"""Where a benchmark's documents come from: its own files in a folder, or the hub; LongBench's are checked by row."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from lazybench.errors import UserError, library_errors
from lazybench.models.hub import files_of
from lazybench.pruning.settings import path_of
from lazybench.tasks.rows import TEXT, TEXTS, WHOLE_NUMBER, Kind, Row, check_fields, read_rows

PROMPTS: dict[str, str] = json.loads((Path(__file__).parent / "longbench" / "prompts.json").read_text(encoding="utf-8"))
FIELDS: dict[str, Kind] = {"_id": TEXT, "input": TEXT, "context": TEXT, "answers": TEXTS}
OPTIONAL: dict[str, Kind] = {"all_classes": TEXTS, "length": WHOLE_NUMBER}


@dataclass(frozen=True)
class DataFile:
    """A file of a benchmark, by its own name under ``data.root`` or by its place on the hub."""

    name: str
    hub_id: str
    revision: str
    hub_name: str

    def source(self, root: Path | None) -> str:
        """For the provenance: which file, or which commit of the hub."""
        return f"hub {self.hub_id}@{self.revision}" if root is None else f"file {self.name}"

    def read(self, root: Path | None) -> bytes:
        """What it holds, from ``root`` or, without one, from the hub or its cache.

        Raises:
            UserError: no such folder or file, which names what the folder holds; or the hub is out of reach.
        """
        if root is None:
            instead = f", or give a folder with {self.name}: data.root=FOLDER"
            with library_errors(f"{self.hub_id}@{self.revision[:12]}", instead):
                offline = files_of(self.hub_id, self.revision, "dataset") is None
                at: dict[str, Any] = {"repo_type": "dataset", "revision": self.revision, "local_files_only": offline}
                return Path(hf_hub_download(self.hub_id, self.hub_name, **at)).read_bytes()
        if not root.is_dir():
            raise UserError(f"data.root={root} is not a folder; give the one that holds {self.name}")
        try:
            return (root / self.name).read_bytes()
        except FileNotFoundError:
            present = ", ".join(sorted(path.name for path in root.glob("*.json*"))[:40]) or "no .jsonl file"
            raise UserError(f"data.root={root} has no {self.name}; it holds {present}") from None
        except OSError as error:
            raise UserError(f"{root / self.name} cannot be read: {error.strerror}") from None


def archive(dataset: str) -> DataFile:
    """LongBench's archive of all datasets, or one dataset's file."""
    revision = "f72191f71cd6fcd0da8a54f0915078efda579449"
    return DataFile(f"{dataset}.jsonl", "zai-org/LongBench", revision, "data.zip")


@dataclass(frozen=True)
class Documents:
    """A dataset's documents in the benchmark's own schema, and where they are from."""

    rows: tuple[dict[str, Any], ...]  # _id, input, context, answers, all_classes, length (None: not given)
    fingerprint: str  # sha256 of the file as it was read
    source: str


def load_documents(dataset: str, root: str | None = None) -> Documents:
    """Read ``dataset`` ("qasper", "qasper_e") from ``root`` or, without one, from the hub.

    Raises:
        UserError: a missing folder or file, a malformed line, a missing field (file, line and field named), or a
            hub that cannot be reached.
    """
    file, folder = archive(dataset), None if root is None else path_of(root)
    name, content = file.name, file.read(folder)
    if folder is None:
        name = f"data/{file.name}"
        with zipfile.ZipFile(BytesIO(content)) as zipped:
            content = zipped.read(name)
    rows = tuple(map(_checked, read_rows(name, content)))
    if not rows:
        raise UserError(f"{name} holds no documents; expected one JSON object a line in LongBench's schema")
    return Documents(rows, hashlib.sha256(content).hexdigest(), file.source(folder))


def _checked(row: Row) -> dict[str, Any]:
    check_fields(row, FIELDS, OPTIONAL)
    where, fields = row
    if not fields["answers"]:
        raise UserError(f"{where}: field 'answers' is empty")
    return {name: fields.get(name) for name in (*FIELDS, *OPTIONAL)} | {"all_classes": fields.get("all_classes") or []}
