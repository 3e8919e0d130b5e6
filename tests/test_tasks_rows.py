"""One check for every file of rows: all benchmarks' take and refuse the same, and a file that is not there is said."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import longbench_rows
import pytest
import test_tasks_longbench_v2
from conftest import python
from hypothesis import given
from hypothesis import strategies as st

from lazybench.errors import UserError
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.rows import read_rows

ROWS: dict[str, Callable[..., dict[str, Any]]] = {
    "qasper": longbench_rows.row,
    "longbench_v2": test_tasks_longbench_v2.row,
}


def lines_of(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def samples(folder: Path, name: str, content: bytes) -> list[Any]:
    (folder / f"{name}.jsonl").write_bytes(content)
    return list(build_task(name, DataSettings(root=folder)).samples())


@pytest.mark.parametrize("name", ROWS)
def test_a_byte_order_mark_a_list_and_rows_without_a_length_are_read(name: str, tmp_path: Path) -> None:
    rows = [{key: value for key, value in ROWS[name](n).items() if key != "length"} for n in (0, 1)]
    plain = samples(tmp_path, name, lines_of(*rows))
    assert len(plain) == 2
    assert "length_bucket" not in plain[0].details
    assert samples(tmp_path, name, codecs.BOM_UTF8 + lines_of(*rows)) == plain
    assert samples(tmp_path, name, codecs.BOM_UTF8 + json.dumps(rows).encode()) == plain
    with pytest.raises(UserError, match=rf"{name}\.jsonl starts as a JSON list and is none"):
        samples(tmp_path, name, json.dumps(rows).encode()[:-1])


def without(field: str) -> Callable[..., dict[str, Any]]:
    return lambda row: {key: value for key, value in row(1).items() if key != field}


OF_ALL: list[tuple[Callable[..., Any], str]] = [
    (lambda row: row(0), r"line 2: _id 'id0' stands on line 1 already"),
    (lambda row: row(1, context="The \ud83d was cut."), r"line 2: a text holds half a character \('\\ud83d'\)"),
    (lambda row: row(1, more=[{"deep": "\udc00"}]), r"line 2: a text holds half a character"),
    (lambda row: row(1, length=[]), r"line 2: field 'length' must be a"),
    (lambda row: b"[1]\n", r"line 2: expected a JSON object, found list"),
    (lambda row: b"\n" + lines_of(row(1)), r"line 2: blank line"),
    (lambda row: b'{"_id": "\xff"}\n', r"line 2: not UTF-8"),
    (lambda row: b"{\n", r"line 2: not JSON: Expecting"),
    (lambda row: b'{"_id": ' + b"1" * 5000 + b"}\n", r"line 2: not JSON"),
    (lambda row: b"[" * 200_000 + b"\n", r"line 2: not JSON"),
    *((without(field), f"line 2: field '{field}' is missing") for field in ("context", "_id")),
]
OF_ONE: list[tuple[str, Callable[..., Any], str]] = [
    ("qasper", without("input"), "line 2: field 'input' is missing"),
    ("qasper", lambda row: row(1, answers="yes"), "line 2: field 'answers' must be a list of texts"),
    ("qasper", lambda row: row(1, answers=[1]), "line 2: field 'answers' must be a list of texts"),
    ("qasper", lambda row: row(1, answers=[]), "line 2: field 'answers' is empty"),
    ("qasper", lambda row: row(1, length="long"), "line 2: field 'length' must be a whole number"),
    ("qasper", lambda row: row(1, all_classes=[None]), "line 2: field 'all_classes' must be a list of texts"),
    ("longbench_v2", lambda row: row(1, answer="E"), "line 2: field 'answer' must be A, B, C or D, not 'E'"),
]


@pytest.mark.parametrize(("name", "second", "named"), [*((name, *case) for name in ROWS for case in OF_ALL), *OF_ONE])
def test_what_is_wrong_with_a_row_is_one_line_that_names_it(
    name: str, second: Callable[..., Any], named: str, tmp_path: Path
) -> None:
    row = ROWS[name]
    with pytest.raises(UserError, match=rf"^{name}\.jsonl {named}"):
        samples(tmp_path, name, lines_of(row(0), second(row)))


@pytest.mark.parametrize("name", ROWS)
def test_a_file_without_rows_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name}\.jsonl.* holds no (documents|question)"):
        samples(tmp_path, name, b"")


@given(
    st.binary(max_size=80) | st.lists(st.sampled_from([b"{", b"}", b'"_id"', b":", b"1", b"\n", b","])).map(b"".join)
)
def test_any_bytes_are_rows_or_one_line(content: bytes) -> None:
    try:
        found = [row for _, row in read_rows("a.jsonl", content)]
    except UserError as error:
        found = [{"told": str(error)}]
    assert all(isinstance(row, dict) for row in found)
    told = [line for row in found if isinstance(line := row.get("told"), str)]
    assert all(line.startswith("a.jsonl ") and "\n" not in line for line in told)


def test_a_folder_without_the_file_says_what_it_holds(tmp_path: Path) -> None:
    longbench_rows.write(tmp_path, "trec", [longbench_rows.row()])
    with pytest.raises(UserError, match=r"has no qasper\.jsonl; it holds trec\.jsonl"):
        build_task("qasper", DataSettings(root=tmp_path))


def test_without_a_hub_the_error_says_what_to_do(tmp_path: Path) -> None:
    program = "from lazybench.tasks import *; build_task('qasper', DataSettings())"
    last = python("-c", program, HF_HOME=str(tmp_path)).stderr.strip().splitlines()[-1]
    assert "UserError" in last
    assert "go online (unset HF_HUB_OFFLINE), or give a folder with qasper.jsonl: data.root=FOLDER" in last


def test_an_unknown_task_of_lm_evals_names_the_close_ones() -> None:
    with pytest.raises(UserError, match="gsm8k"):
        build_task("lm_eval/gsm8kk", DataSettings())
