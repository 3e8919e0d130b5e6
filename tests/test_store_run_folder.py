"""A run folder on its way through damage, changed configurations and reruns; and results read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from drawn_records import records
from hypothesis import given
from hypothesis import strategies as st
from store_driver import record

from lazybench.errors import UserError
from lazybench.report.results import load
from lazybench.run.reading import read_records
from lazybench.run.record import Record, from_line, to_line
from lazybench.run.run_folder import RunFolder

CONFIG = {"model": {"name": "tiny", "dtype": "auto"}, "methods": [{"keep": [0.7, 0.5]}], "rate": 1e-5, "limit": None}
FACTS = {"commit": "aaa", "source_sha256": "1", "model": {"sha256": "x"}, "tasks": {}, "tiny": 1e-5}


def open_folder(path: Path, config: dict = CONFIG, facts: dict = FACTS) -> RunFolder:
    return RunFolder.open(path, config, facts)


def fill(path: Path, count: int) -> None:
    with open_folder(path) as folder:
        for number in range(count):
            folder.append(record(number))


def test_cut_at_every_byte(tmp_path: Path) -> None:
    """Wherever a crash cut the file: whole lines stay as they are, the rest is run again, nothing doubles."""
    fill(tmp_path, 3)
    samples = tmp_path / "samples.jsonl"
    whole = samples.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole) + 1, 3):
        samples.write_bytes(whole[:cut])
        with open_folder(tmp_path) as folder:
            kept = len(folder.done)
            assert kept in (whole[:cut].count(b"\n"), whole[: cut + 1].count(b"\n"))  # a line whole but for its newline
            for number in range(3):
                if record(number).key not in folder.done:
                    folder.append(record(number))
        assert samples.read_bytes() == whole


def test_malformed_lines_are_put_aside_and_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, 6)
    lines = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    lines[1] = b"\x00" * 40
    lines[2] = lines[2].replace(b'"ttft_s": 0.125', b'"ttft_s": NaN')
    lines[3] = lines[3].replace(b'"repeat": 1', b'"repeat": "one"')
    lines[4] = b'{"model": "tiny"}'
    (tmp_path / "samples.jsonl").write_bytes(b"\n".join([*lines, lines[0]]) + b"\n")
    with open_folder(tmp_path) as folder:
        assert set(folder.done) == {record(0).key, record(5).key}
        assert list(folder.done.values()) == [record(0), record(5)]
        for number in (1, 2, 3, 4):
            folder.append(record(number))
    assert "4 unreadable line(s)" in capsys.readouterr().err
    assert (tmp_path / "samples.malformed.jsonl").read_bytes().splitlines() == lines[1:5]
    assert {found.key for found in read_records(tmp_path / "samples.jsonl")} == {record(n).key for n in range(6)}
    with open_folder(tmp_path):
        assert capsys.readouterr().err == ""


def test_failed_samples_are_tried_again(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        folder.append(record(0))
        folder.append(record(1, error="OutOfMemoryError: too big"))
        folder.append(record(2))
        folder.finish()
        assert [found.sample_id for found in folder.failed()] == ["s1"]
        assert json.loads((tmp_path / "done").read_text()) == {"records": 3, "failed": 1}
    with open_folder(tmp_path) as folder:
        assert set(folder.done) == {record(0).key, record(2).key}
        assert folder.failed() == []
        assert not (tmp_path / "done").exists()
        folder.append(record(1))
        folder.finish()
    assert read_records(tmp_path / "samples.jsonl") == [record(0), record(2), record(1)]
    assert from_line((tmp_path / "samples.failed.jsonl").read_bytes()).error == "OutOfMemoryError: too big"


def test_a_record_never_stands_twice(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    before = (tmp_path / "samples.jsonl").read_bytes()
    with open_folder(tmp_path) as folder, pytest.raises(ValueError, match="appended before"):
        folder.append(record(1))
    assert (tmp_path / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "facts", "named"),
    [
        ({"model": {"name": "tiny", "dtype": "float32"}}, {}, "model.dtype: 'auto' then, 'float32' now"),
        ({"methods": [{"keep": [0.7, 0.6]}]}, {}, r"methods\[0\].keep\[1\]: 0.5 then, 0.6 now"),
        ({"repeats": 3}, {}, "repeats: None then, 3 now"),
        ({}, {"model": {"sha256": "y"}}, r"model\.sha256: 'x' then, 'y' now"),
        ({}, {"tasks": {"qasper": "new"}}, r"tasks\.qasper"),
    ],
)
def test_changed_configuration_weights_or_data_are_refused(
    tmp_path: Path, config: dict, facts: dict, named: str
) -> None:
    fill(tmp_path, 1)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=named):
        open_folder(tmp_path, {**CONFIG, **config}, {**FACTS, **facts})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    open_folder(tmp_path).close()  # the refusal let go of the lock


@pytest.mark.parametrize(
    ("limits", "kept", "ended"),
    [
        ((3, 10), 10, True),
        ((3, None), None, True),
        ((3, 3), 3, True),
        ((10, 3), 10, False),
        ((None, 3), None, False),
    ],
)
def test_a_higher_limit_goes_on_and_a_lower_one_does_not_end_what_was_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limits: tuple[int | None, ...], kept: int | None, ended: bool
) -> None:
    for number, limit in enumerate(limits):  # after the first an interrupt
        with open_folder(tmp_path, {**CONFIG, "limit": limit}) as folder:
            folder.append(record(number))
            if number:
                folder.finish()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["limit"] == kept
    assert len(folder.done) == 2
    assert (tmp_path / "done").exists() == ended
    said = f"was begun with limit={'null' if kept is None else kept}"
    assert (said in capsys.readouterr().err) != ended


def test_resume_is_noted_once_something_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, 2)
    later = {**FACTS, "commit": "bbb", "source_sha256": "2", "started_at": "later"}
    with open_folder(tmp_path, facts=later) as folder:
        folder.finish()
        assert json.loads((tmp_path / "provenance.json").read_text()) == FACTS
        folder.append(record(2))
        folder.append(record(3))
        assert not (tmp_path / "done").exists()  # not complete while it goes on
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert facts.pop("resumed") == [
        {"after_records": 2, "commit": "bbb", "source_sha256": "2", "started_at": "later"},
    ]
    assert facts == FACTS
    assert "other code" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
@pytest.mark.parametrize("content", [None, "", "{", "- 1"])
def test_samples_without_their_origin_are_refused(tmp_path: Path, name: str, content: str | None) -> None:
    fill(tmp_path, 1)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        open_folder(tmp_path)


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        open_folder(tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        open_folder(tmp_path / "file" / "below")


def test_not_a_number_becomes_null_and_is_named() -> None:
    odd = replace(record(0), fidelity_kl=math.nan, ttft_s=math.inf, details={"nested": [1.0, -math.inf]})
    back = from_line(to_line(odd))
    assert (back.fidelity_kl, back.ttft_s) == (None, None)
    assert back.details == {"nested": [1.0, None], "not_finite": ["ttft_s", "fidelity_kl", "details"]}


RECORDS = records(st.text(), st.text(st.characters(exclude_categories=[])))  # lone surrogates too


@given(RECORDS)
def test_line_and_back(made: Record) -> None:
    """Any text survives, and a line is a line whatever newlines the prediction holds."""
    line = to_line(made)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert from_line(line) == made


@given(RECORDS, st.data())
def test_no_part_of_a_line_is_a_record(made: Record, data: st.DataObject) -> None:
    """What makes torn lines safe to find: only the whole of a line can be read."""
    line = to_line(made).rstrip(b"\n")
    cut = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(ValueError, match=r"."):
        from_line(line[:cut])


# results read back: one run, shards of one run, many runs, files of other versions
def measure(folder: Path, numbers: range, shard: str, finish: bool = True, commit: str = "c0") -> None:
    config = {"model": {"name": "tiny"}, "task": {"datasets": ["qasper"]}, "limit": None, "seed": 0, "shard": shard}
    with RunFolder.open(folder, config, {"commit": commit}) as run:
        for number in numbers:
            run.append(record(number))
        if finish:
            run.finish()


def test_unknown_fields_pass_and_optional_ones_default(tmp_path: Path) -> None:
    wide = {**json.loads(to_line(record(0))), "from_the_future": [1]}
    narrow = {name: wide[name] for name in ("model", "task", "category", "method", "params", "sample_id", "repeat")}
    narrow |= {"prompt_tokens": 7, "sample_id": "s1"}
    (tmp_path / "samples.jsonl").write_text(json.dumps(wide) + "\n" + json.dumps(narrow) + "\n")
    first, second = read_records(tmp_path / "samples.jsonl")
    assert first == record(0)
    assert (second.prompt_tokens, second.ttft_s, second.prediction, second.error) == (7, None, "", None)


def test_torn_end_passes_but_a_broken_middle_is_named(tmp_path: Path) -> None:
    whole = to_line(record(0)) + to_line(record(1))
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(whole[:-9])
    assert read_records(samples) == [record(0)]
    samples.write_bytes(b"{}\n" + whole)
    with pytest.raises(UserError, match=r"samples\.jsonl line 1 is no record"):
        read_records(samples)


def test_a_later_line_supersedes_the_earlier_of_its_key_in_its_place(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    complete = replace(record(0), fidelity_top1=0.75, fidelity_kl=0.1)
    whole = to_line(record(0)) + to_line(record(1)) + to_line(complete)
    samples.write_bytes(whole)
    assert read_records(samples) == [complete, record(1)]
    samples.write_bytes(whole[:-9])  # killed while completing: the times stand
    assert read_records(samples) == [record(0), record(1)]


def lacking(tmp_path: Path) -> list[str]:
    return [note for note in load([tmp_path]).notes if "missing" in note]


def test_shards_share_rows_and_a_missing_one_is_said(tmp_path: Path) -> None:
    for index in range(2):
        measure(tmp_path / "sweep" / f"part{index}", range(index, 9, 3), f"{index}/3")
    assert lacking(tmp_path) == ["part0, part1: missing shards 2/3."]
    measure(tmp_path / "sweep" / "part2", range(2, 9, 3), "2/3", commit="c1")  # of other code: its records say so
    assert lacking(tmp_path) == []
    (row,) = load([tmp_path]).summary.to_dict("records")
    assert row["n"] == 9


def test_shards_of_several_divisions_may_make_a_whole_and_unfinished_ones_are_said(tmp_path: Path) -> None:
    measure(tmp_path / "a", range(0, 8, 2), "0/2")
    measure(tmp_path / "b", range(1, 4, 4), "1/4", finish=False)
    assert lacking(tmp_path) == ["b is unfinished: samples may be missing.", "a, b: missing shards 3/4."]
    measure(tmp_path / "b", range(5, 8, 4), "1/4")
    measure(tmp_path / "c", range(3, 8, 4), "3/4")
    assert lacking(tmp_path) == []
