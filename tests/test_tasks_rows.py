"""One check for every file of rows: LongBench's, LongBench v2's and RULER's take and refuse the same."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import longbench_rows
import pytest
import test_tasks_longbench_v2
from hypothesis import given
from hypothesis import strategies as st
from ruler_rows import write_ruler_files

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


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("second", "named"),
    [
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
    ],
)
def test_what_is_wrong_with_a_row_is_one_line_that_names_it(
    second: Callable[..., Any], named: str, name: str, tmp_path: Path
) -> None:
    row = ROWS[name]
    with pytest.raises(UserError, match=rf"^{name}\.jsonl {named}"):
        samples(tmp_path, name, lines_of(row(0), second(row)))


@pytest.mark.parametrize(
    ("task", "file"),
    [("ruler_qa_1", "squad"), ("ruler_qa_2", "hotpotqa"), ("ruler_niah_single_2", "PaulGrahamEssays")],
)
def test_rulers_files_pass_the_same_check(task: str, file: str, tmp_path: Path) -> None:
    pytest.importorskip("wonderwords")
    path = write_ruler_files(tmp_path) / f"{file}.json"
    settings = DataSettings(root=tmp_path, limit=1, parameters={"length": 2048})
    plain, content = build_task(task, settings).samples(), path.read_text()
    path.write_bytes(codecs.BOM_UTF8 + content.encode())
    assert build_task(task, settings).samples() == plain
    path.write_text(content.replace("the", "\\ud83d", 1).replace("line", "\\ud83d", 1).replace("First", "\\ud83d", 1))
    with pytest.raises(UserError, match=rf"^{file}\.json: a text holds half a character"):
        build_task(task, settings).samples()


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
