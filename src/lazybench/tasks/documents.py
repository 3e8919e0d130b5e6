"""LongBench documents from a folder of JSONL files or from the hub, checked row by row.

Two layouts are read and told apart by their fields: the benchmark's own (``input`` and ``context``), and the one
of Xnhyacinth/LongBench, where the instructions already stand in ``context`` and ``question`` and the prompt's end
in ``answer_prefix``. Both give the same documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lazybench.errors import UserError
from lazybench.models.hub import TIMEOUT_S, unreachable
from lazybench.pruning.settings import path_of
from lazybench.tasks.rows import Row, check_rows, read_rows

PROMPTS: dict[str, str] = json.loads((Path(__file__).parent / "longbench" / "prompts.json").read_text(encoding="utf-8"))

HUB_ID = "zai-org/LongBench"
HUB_REVISION = "f72191f71cd6fcd0da8a54f0915078efda579449"
FIELDS: dict[str, type] = {"context": str, "answers": list, "_id": str}
ORIGINAL_FIELDS: dict[str, type] = {"input": str}
TEMPLATED_FIELDS: dict[str, type] = {"question": str, "answer_prefix": str}
KINDS = {str: "a text", int: "a whole number", list: "a list of texts"}


@dataclass(frozen=True)
class Documents:
    """A dataset's documents in the benchmark's own schema, and where they are from."""

    rows: tuple[dict[str, Any], ...]  # _id, input, context, answers, all_classes, length (None: not given)
    fingerprint: str  # sha256 of the file as it was read
    source: str


def load_documents(
    dataset: str, root: str | None = None, hub_id: str = HUB_ID, revision: str = HUB_REVISION
) -> Documents:
    """Read ``dataset`` ("qasper", "qasper_e") from ``root`` or, without one, from the hub.

    Raises:
        UserError: a missing folder or file, a malformed line, a missing field (file, line and field named), or a
            hub that cannot be reached.
    """
    if root is not None:
        name = f"{dataset}.jsonl"
        content = read_file(path_of(root), name)
        rows = read_rows(name, content)
        source = f"file {name}"
    else:
        name, content, rows = _download(dataset, hub_id, revision)
        source = f"hub {hub_id}@{revision}"
    template = PROMPTS[dataset.removesuffix("_e")]
    documents = tuple(_checked(where, row, template) for where, row in rows)
    if not documents:
        raise UserError(f"{name} holds no documents; expected one JSON object a line in LongBench's schema")
    return Documents(documents, hashlib.sha256(content).hexdigest(), source)


def read_file(root: Path, name: str) -> bytes:
    """A file of the data folder.

    Raises:
        UserError: no such folder or file; what the folder holds is named.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder; give the one that holds {name}")
    try:
        return (root / name).read_bytes()
    except FileNotFoundError:
        present = ", ".join(sorted(path.name for path in root.glob("*.json*"))[:40]) or "no .jsonl file"
        raise UserError(f"data.root={root} has no {name}; it holds {present}") from None
    except OSError as error:
        raise UserError(f"{root / name} cannot be read: {error.strerror}") from None


def _checked(where: str, row: Mapping[str, Any], template: str) -> dict[str, Any]:
    templated = "question" in row and "input" not in row
    for field, kind in {**FIELDS, **(TEMPLATED_FIELDS if templated else ORIGINAL_FIELDS)}.items():
        if field not in row:
            raise UserError(f"{where}: field {field!r} is missing")
        _check_kind(where, row, field, kind)
    if row.get("length") is not None:
        _check_kind(where, row, "length", int)
    classes = row.get("all_classes") or []
    for field, values in (("answers", row["answers"]), ("all_classes", classes)):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise UserError(f"{where}: field {field!r} must be a list of texts, not {_shown(values)}")
    if not row["answers"]:
        raise UserError(f"{where}: field 'answers' is empty")
    context, question = row["context"], row.get("input", "")
    if templated:
        try:
            context, question = untemplated(template, context, row["question"], row["answer_prefix"])
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
    return {
        "_id": row["_id"],
        "input": question,
        "context": context,
        "answers": row["answers"],
        "all_classes": classes,
        "length": row.get("length"),
    }


def _check_kind(where: str, row: Mapping[str, Any], field: str, kind: type) -> None:
    if not isinstance(row[field], kind) or isinstance(row[field], bool):
        raise UserError(f"{where}: field {field!r} must be {KINDS[kind]}, not {_shown(row[field])}")


def untemplated(template: str, context: str, question: str, answer_prefix: str) -> tuple[str, str]:
    """``context`` and ``input`` again, from the columns that already hold the instructions.

    Raises:
        ValueError: the columns do not add up to the benchmark's prompt.
    """
    head, _, rest = template.partition("{context}")
    middle, has_input, tail = rest.partition("{input}")
    if has_input and not tail and question.rstrip().endswith(answer_prefix.rstrip()):
        answer_prefix = ""  # "Summary: " was kept in the question where only "Summary:" would have been moved
    prompt = context + question + answer_prefix
    if not (prompt.startswith(head) and prompt.endswith(tail or rest if not has_input else tail)):
        raise ValueError("the columns context, question and answer_prefix do not add up to LongBench's prompt")
    if not has_input:
        return prompt[len(head) : len(prompt) - len(rest)], ""
    end = len(prompt) - len(tail)
    for split in range(len(middle), -1, -1):  # where the instruction between the two was cut
        if context.endswith(middle[:split]) and question.startswith(middle[split:]):
            start = len(context) - split
            return prompt[len(head) : start], prompt[start + len(middle) : end]
    raise ValueError("the columns context and question do not meet as in LongBench's prompt")


def _download(dataset: str, hub_id: str, revision: str) -> tuple[str, bytes, list[Row]]:
    """The dataset's file from the hub: the archive of the benchmark, or a parquet file of a copy."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    parquet = f"{dataset}/test-00000-of-00001.parquet"
    with hub_errors(hub_id, revision, f"{dataset}.jsonl"):
        try:
            return _from_archive(hub_file(hub_id, "data.zip", revision), dataset)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise
            return _from_parquet(hub_file(hub_id, parquet, revision), parquet)


def hub_file(hub_id: str, name: str, revision: str) -> Path:
    """A data set's file from the hub or, where it was fetched before, from the hub's cache."""
    from huggingface_hub import hf_hub_download

    cached = not _hub_answers(hub_id, revision)
    return Path(hf_hub_download(hub_id, name, repo_type="dataset", revision=revision, local_files_only=cached))


@cache
def _hub_answers(hub_id: str, revision: str) -> bool:
    """One short question first: without a network a download would try for half a minute."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(hub_id, revision=revision, timeout=TIMEOUT_S)
    except Exception as error:
        return not unreachable(error)
    return True


@contextmanager
def hub_errors(hub_id: str, revision: str, instead: str) -> Iterator[None]:
    """Whatever keeps a file of the hub away becomes one line that asks for ``instead`` under data.root.

    Raises:
        UserError: no network, no such repository, an offline setting: all ask for the same.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{hub_id}@{revision[:12]} cannot be loaded from the hub ({type(error).__name__}: {reason}); "
            f"give a folder with {instead} instead: data.root=FOLDER"
        ) from None


def _from_archive(path: Path, dataset: str) -> tuple[str, bytes, list[Row]]:
    import zipfile

    name = f"data/{dataset}.jsonl"
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            raise UserError(f"{path.name} of the hub holds no {name}")
        content = archive.read(name)
    return name, content, read_rows(name, content)


def _from_parquet(path: Path, name: str) -> tuple[str, bytes, list[Row]]:
    from pyarrow import parquet

    rows = enumerate(parquet.read_table(path).to_pylist(), start=1)
    return name, path.read_bytes(), check_rows((f"{name} row {number}", row) for number, row in rows)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
