"""Runs whose task, data, weights or settings differ never share a row, and the rows say in what; others always do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from synthetic_results import Params, made_up_records, pruned, write_run

from lazybench.report.__main__ import main
from lazybench.report.results import Results, load

METHODS: list[tuple[str, Params]] = [("baseline", {}), ("lazyllm", pruned(depths=[0.3], keep=[0.5]))]
PLAIN = [record for record in made_up_records(2, methods=METHODS) if record.task == "qasper"]
MODEL = {"name": "made-up", "chat_format": "none"}
LAZY = [record for record in PLAIN if record.method == "lazyllm"]


def baselines(results: Results) -> pandas.DataFrame:
    summary = results.summary
    return summary[(summary["method"] == "baseline") & (summary["level"] == "task")]


def test_a_sweep_of_three_lengths_gives_three_labelled_rows(tmp_path: Path) -> None:
    for length in (300, 1500, 900):
        task = {"name": "needle", "datasets": ["needle"], "parameters": {"length": length}}
        records = [replace(r, task="needle", category="embedded_needle", ttft_s=length / 100) for r in PLAIN]
        write_run(tmp_path / f"needle{length}", records, task=task, limit=length)
    rows = baselines(load([tmp_path]))
    assert rows["model"].tolist() == ["made-up length=300", "made-up length=900", "made-up length=1500"]
    assert rows["ttft_median_s"].tolist() == [3.0, 9.0, 15.0]
    assert rows["n"].tolist() == [2, 2, 2]
    assert main([str(tmp_path), "--only", "fig5", "--out", str(tmp_path / "report")]) == 0
    table = (tmp_path / "report" / "table.md").read_text()
    for title in ("made-up length=300, needle", "made-up length=900, needle", "made-up length=1500, needle"):
        assert f"**{title}**" in table
    assert (tmp_path / "report" / "fig5.png").is_file()


def test_data_with_equal_ids_and_other_texts_are_two_rows(tmp_path: Path) -> None:
    other = [replace(record, task="hotpotqa", category="multi_doc_qa") for record in PLAIN]
    for run, digest in (("papers", "a" * 64), ("stories", "b" * 64)):
        tasks = {"qasper": {"fingerprint": digest}, "hotpotqa": {"fingerprint": "c" * 64}}
        records = [*PLAIN, *(replace(r, sample_id=f"{run}-{r.sample_id}") for r in other)]
        write_run(tmp_path / run, records, facts={"tasks": tasks})
    rows = baselines(load([tmp_path])).set_index(["task", "model"])["n"]
    assert dict(rows) == {
        ("qasper", "made-up data=aaaaaaa"): 2,
        ("qasper", "made-up data=bbbbbbb"): 2,
        ("hotpotqa", "made-up"): 4,
    }


@pytest.mark.parametrize(
    ("facts", "config", "settings"),
    [
        ({}, {"max_new_tokens": 16}, {"max_new_tokens=default", "max_new_tokens=16"}),
        ({"model": {"dtype": "bfloat16"}}, {}, {"dtype=float32", "dtype=bfloat16"}),
        ({"model": {"dtype": "float32", "attention": "eager"}}, {}, {"attention=default", "attention=eager"}),
        ({"model": {"dtype": "float32", "sha256": "c" * 64}}, {}, {"fingerprint=default", "fingerprint=ccccccc"}),
        ({}, {"model": MODEL | {"prompt_limit_tokens": 9}}, {"prompt_limit_tokens=9", "prompt_limit_tokens=default"}),
    ],
)
def test_settings_that_numbers_depend_on_are_rows_of_their_own(
    facts: dict[str, object], config: dict[str, object], settings: set[str], tmp_path: Path
) -> None:
    write_run(tmp_path / "one", PLAIN)
    write_run(tmp_path / "other", PLAIN, facts=facts, **config)
    results = load([tmp_path])
    assert {" ".join(one.split()[-1:]) for one in results.summary["model"]} == settings
    assert set(results.summary["n"]) == {2}


def test_code_machines_and_how_much_was_measured_split_no_row_and_one_line_says_so(tmp_path: Path) -> None:
    halves = [[record for record in PLAIN if record.sample_id == f"qasper-{place}"] for place in range(2)]
    for place, half in enumerate(halves):
        facts = {"hardware": {"cpu": f"cpu {place}"}, "libraries": {"torch": str(place)}}
        records = [replace(record, commit=f"{place}" * 40) for record in half]
        write_run(tmp_path / f"run{place}", records, facts=facts, limit=place + 1, fidelity=bool(place))
    results = load([tmp_path])
    assert set(results.summary["n"]) == {2}
    assert set(results.summary["model"]) == {"made-up"}
    assert "Records of commits 0000000, 1111111." in results.notes


def test_seeds_are_pooled_as_repeats_of_a_sample(tmp_path: Path) -> None:
    for seed in (0, 7):
        records = [replace(record, score=(0.2 + 0.1 * seed) * (record.score is not None)) for record in PLAIN]
        write_run(tmp_path / f"seed{seed}", records, seed=seed)
    pooled = load([tmp_path])
    assert set(pooled.summary["n"]) == {2}
    assert pooled.summary["score"].tolist() == pytest.approx([0.55, 0.55])
    assert not any("stand in" in note for note in pooled.notes)


def test_a_method_added_later_is_paired_with_its_own_baseline(tmp_path: Path) -> None:
    added = [
        replace(r, ttft_s=2 * (r.ttft_s or 0), method=r.method.replace("lazyllm", "static_pruning")) for r in PLAIN
    ]
    write_run(tmp_path / "one", PLAIN)
    write_run(tmp_path / "two", added)
    results = load([tmp_path])
    speedups = results.summary.set_index("method")["ttft_speedup"]
    assert speedups["lazyllm"] == pytest.approx(speedups["static_pruning"])
    assert results.summary["n"].tolist() == [2, 2, 2]
    assert not any("stand in" in note for note in results.notes)


def test_of_the_same_record_in_two_folders_the_newest_counts(tmp_path: Path) -> None:
    later = [replace(record, score=1.0, ttft_s=8 * (record.ttft_s or 0)) for record in PLAIN]
    write_run(tmp_path / "z_first", PLAIN)
    write_run(tmp_path / "again", later, facts={"started_at": "2024-08-01T00:00:00+00:00"})
    results = load([tmp_path])
    assert results.summary["score"].tolist() == [1.0, 1.0]
    assert results.summary["ttft_median_s"].tolist() == pytest.approx(
        [sum(r.ttft_s or 0 for r in later if r.method == name) / 2 for name in ("baseline", "lazyllm")]
    )
    folders = tmp_path / "z_first", tmp_path / "again"
    assert "2 records of {} stand in {} too: the newer ones count.".format(*folders) in results.notes


def test_a_newer_record_that_failed_replaces_nothing(tmp_path: Path) -> None:
    failed = [replace(record, error="OutOfMemoryError: too big") for record in LAZY]
    write_run(tmp_path / "one", PLAIN)
    write_run(tmp_path / "two", failed, facts={"started_at": "2024-08-01T00:00:00+00:00"})
    rows = load([tmp_path]).summary.set_index("method")
    assert (rows.loc["lazyllm", "n"], rows.loc["lazyllm", "failed"]) == (2, 2)
