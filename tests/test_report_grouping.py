"""Runs that differ in anything that a number hangs on never share a row, and the rows say in what they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from synthetic_results import made_up_records, write_run

from lazybench.errors import UserError
from lazybench.report.__main__ import build
from lazybench.report.results import Results, load
from lazybench.run.record import Record

METHODS = [("baseline", ""), ("lazyllm", "depths=0.3 keep=0.5")]
PLAIN = [record for record in made_up_records(2, methods=METHODS) if record.task == "qasper"]


def needle(seconds: float, samples: Sequence[str] = ("0", "1")) -> list[Record]:
    """Records of a needle run: the baseline takes as long as said, LazyLLM half as long."""
    like = replace(PLAIN[0], task="needle", category="embedded_needle")
    return [
        replace(like, sample_id=sample, method=method, variant=variant, ttft_s=seconds * factor)
        for sample in samples
        for (method, variant), factor in zip(METHODS, (1.0, 0.5), strict=True)
    ]


def write_needle(root: Path, length: int, records: list[Record], **config: object) -> Path:
    task = {"name": "needle", "datasets": ["needle"], "parameters": {"length": length}}
    return write_run(root / f"needle{length}", records, task=task, **config)


def baselines(results: Results) -> pandas.DataFrame:
    summary = results.summary
    return summary[(summary["method"] == "baseline") & (summary["level"] == "task")]


def test_a_sweep_of_three_lengths_gives_three_labelled_rows(tmp_path: Path) -> None:
    for length in (300, 1500, 900):
        write_needle(tmp_path, length, needle(length / 100))
    rows = baselines(load([tmp_path]))
    assert rows["setting"].tolist() == ["length=300", "length=900", "length=1500"]
    assert rows["ttft_median_s"].tolist() == [3.0, 9.0, 15.0]
    assert rows["n"].tolist() == [2, 2, 2]
    build([tmp_path], None, ["fig5"], texts=False, data_root=None)
    table = (tmp_path / "report" / "table.md").read_text()
    for title in ("made-up, needle length=300", "made-up, needle length=900", "made-up, needle length=1500"):
        assert f"**{title}**" in table
    assert {path.name for path in (tmp_path / "report").glob("fig5_made-up_length*.png")} == {
        f"fig5_made-up_length_{length}{what}.png" for length in (300, 900, 1500) for what in ("", "_fidelity")
    }


def test_other_lengths_and_limits_are_never_averaged(tmp_path: Path) -> None:
    write_needle(tmp_path, 600, needle(6.0, ["0"]), limit=1)
    write_needle(tmp_path, 300, needle(3.0), limit=2)
    rows = baselines(load([tmp_path]))
    assert list(zip(rows["setting"], rows["n"], rows["ttft_median_s"], strict=True)) == [
        ("length=300", 2, 3.0),
        ("length=600", 1, 6.0),
    ]


def test_two_data_roots_with_equal_ids_and_other_texts_are_two_rows(tmp_path: Path) -> None:
    for root, digest in (("papers", "a" * 64), ("stories", "b" * 64)):
        tasks = {"qasper": {"fingerprint": digest, "source": "file qasper.jsonl"}}
        write_run(tmp_path / root, PLAIN, facts={"tasks": tasks}, data={"root": f"/somewhere/{root}"})
    rows = baselines(load([tmp_path]))
    assert rows["setting"].tolist() == ["data=papers", "data=stories"]
    assert rows["n"].tolist() == [2, 2]


def test_data_in_folders_of_one_name_is_told_apart_by_its_digest(tmp_path: Path) -> None:
    for run, digest in (("one", "a" * 64), ("other", "b" * 64)):
        tasks = {"qasper": {"fingerprint": digest, "source": "file qasper.jsonl"}}
        write_run(tmp_path / run, PLAIN, facts={"tasks": tasks}, data={"root": f"/{run}/longbench"})
    settings = baselines(load([tmp_path]))["setting"].tolist()
    assert len(set(settings)) == 2
    assert all(setting.startswith("data=") for setting in settings)


@pytest.mark.parametrize(
    ("facts", "config", "labels"),
    [
        ({"source_sha256": "c" * 64}, {}, {"made-up code=0000000", "made-up code=ccccccc"}),
        ({}, {"seed": 7}, {"made-up seed=0", "made-up seed=7"}),
        ({}, {"max_new_tokens": 16}, {"made-up max_new_tokens=default", "made-up max_new_tokens=16"}),
        ({"hardware": {"cpu": "other"}}, {}, {"made-up cpu=made-up", "made-up cpu=other"}),
        ({"model": {"dtype": "bfloat16"}}, {}, {"made-up dtype=float32", "made-up dtype=bfloat16"}),
    ],
)
def test_settings_that_differ_are_models_of_their_own(
    facts: dict[str, object], config: dict[str, object], labels: set[str], tmp_path: Path
) -> None:
    write_run(tmp_path / "one", PLAIN)
    write_run(tmp_path / "other", PLAIN, facts=facts, **config)
    results = load([tmp_path])
    assert set(results.summary["model"]) == labels
    assert set(results.summary["n"]) == {2}


def test_methods_of_other_code_are_told_apart_and_new_ones_stand_beside_the_old(tmp_path: Path) -> None:
    for run, code in (("one", "a"), ("other", "b")):
        write_run(tmp_path / run, PLAIN, facts={"methods": {"lazyllm": code * 64, f"only {run}": "c" * 64}})
    assert set(load([tmp_path]).summary["model"]) == {"made-up methods=0", "made-up methods=1"}
    others = [replace(record, method="gemfilter") for record in PLAIN if record.method == "lazyllm"]
    write_run(tmp_path / "later", others, facts={"methods": {"lazyllm": "a" * 64, "gemfilter": "d" * 64}})
    assert set(load([tmp_path / "one", tmp_path / "later"]).summary["model"]) == {"made-up"}


def test_runs_that_differ_stand_in_one_row_where_that_is_asked_for_and_a_note_says_so(tmp_path: Path) -> None:
    halves = [[record for record in PLAIN if record.sample_id == f"qasper-{place}"] for place in range(2)]
    facts = {"source_sha256": "c" * 64, "methods": {"lazyllm": "d" * 64}, "hardware": {"cpu": "other"}}
    write_run(tmp_path / "one", halves[0], facts={"methods": {"lazyllm": "a" * 64}, "hardware": {"cpu": "made-up"}})
    write_run(tmp_path / "other", halves[1], facts=facts)
    assert set(load([tmp_path]).summary["n"]) == {1}
    assert set(load([tmp_path], joined=["code"]).summary["model"]) == {"made-up cpu=made-up", "made-up cpu=other"}
    joined = load([tmp_path], joined=["code", "hardware"])
    assert set(joined.summary["model"]) == {"made-up"}
    assert set(joined.summary["n"]) == {2}
    for differing, name in (("code, code.methods", "code"), ("hardware.cpu", "hardware")):
        assert f"Runs that differ in {differing} stand in the same rows (--join {name})." in joined.notes
    with pytest.raises(UserError, match=r"--join cpus: no run says this; what runs are told apart by: .*hardware"):
        assert load([tmp_path], joined=["cpus"]).groups


def test_what_differs_beside_the_label_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "one", PLAIN)
    write_run(tmp_path / "other", PLAIN, seed=7, threads=4)
    assert any("differ in threads too" in note for note in load([tmp_path]).notes)


def test_how_much_was_measured_is_no_setting(tmp_path: Path) -> None:
    """Other samples, other methods, with fidelity or without: one row for each method, with all of its samples."""
    halves = [[record for record in PLAIN if record.sample_id == f"qasper-{place}"] for place in range(2)]
    write_run(tmp_path / "one", halves[0], limit=1, fidelity=True)
    write_run(tmp_path / "other", halves[1], limit=2, fidelity=False)
    results = load([tmp_path])
    assert results.summary["n"].tolist() == [2, 2]
    assert set(results.summary["model"]) == {"made-up"}


def test_a_method_added_later_is_paired_with_its_own_baseline_and_that_is_said(tmp_path: Path) -> None:
    added = [
        replace(r, ttft_s=2 * (r.ttft_s or 0), method=r.method.replace("lazyllm", "static_pruning")) for r in PLAIN
    ]
    write_run(tmp_path / "one", PLAIN, methods=["baseline", "lazyllm"])
    write_run(tmp_path / "two", added, methods=["baseline", "static_pruning"])
    results = load([tmp_path])
    speedups = results.summary.set_index("method")["ttft_speedup"]
    assert speedups["lazyllm"] == pytest.approx(speedups["static_pruning"])
    assert results.summary["n"].tolist() == [2, 2, 2]
    assert any("baselines of 2 samples were measured in several runs" in note for note in results.notes)


def test_the_same_records_in_two_runs_are_told_apart_by_what_they_can(tmp_path: Path) -> None:
    write_run(tmp_path / "one", PLAIN, limit=2)
    write_run(tmp_path / "other", PLAIN, limit=4)
    assert baselines(load([tmp_path]))["setting"].tolist() == ["limit=2", "limit=4"]


def test_what_cannot_be_told_apart_is_refused_in_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "run", PLAIN, methods=["baseline", "lazyllm"])
    write_run(tmp_path / "b" / "run", PLAIN, methods=["lazyllm", "baseline"])
    with pytest.raises(UserError, match="nothing tells them apart") as caught:
        _ = load([tmp_path]).summary
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a" / "run") in str(caught.value)


def test_copies_of_a_run_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", PLAIN)
    write_run(tmp_path / "b", PLAIN)
    with pytest.raises(UserError, match="both hold"):
        load([tmp_path])


def test_a_run_that_went_on_with_other_code_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "one", PLAIN, facts={"resumed": [{"after_records": 2, "source_sha256": "d" * 64}]})
    assert "one went on with other code after 2 records." in load([tmp_path]).notes
