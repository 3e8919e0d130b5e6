"""Reading results back: one run, shards of one run, many runs, and files of other versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from store_driver import record

from lazybench.errors import UserError
from lazybench.report.results import load
from lazybench.run.reading import find_runs, read_records
from lazybench.run.record import to_line
from lazybench.run.run_folder import RunFolder


def measure(
    folder: Path, numbers: range, shard: str = "0/1", seed: int = 0, finish: bool = True, commit: str = "c0"
) -> None:
    config = {"model": {"name": "tiny"}, "task": {"datasets": ["qasper"]}, "limit": None, "seed": seed, "shard": shard}
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


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match="no run in"):
        find_runs(tmp_path / "nowhere")
