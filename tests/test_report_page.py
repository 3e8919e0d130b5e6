"""The page: self-contained, no machine's folders, no stray warnings."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import made_up_records, results_of, write_run

from lazybench.report.__main__ import main
from lazybench.report.page import settings_figure, write_report, write_run_report
from lazybench.report.results import load


def test_page_needs_no_network_and_names_no_folder(tmp_path):
    records = [record for record in made_up_records(2) if record.task in ("qasper", "hotpotqa")]
    write_run(tmp_path / "run", records, data={"root": "/home/someone/longbench"}, out="/scratch/someone/run")
    assert main([str(tmp_path), "--only", "fig5", "--out", str(tmp_path / "report")]) == 0
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert pictures == ["fig5.png"]
    assert all((tmp_path / "report" / name).is_file() for name in pictures)
    assert "/home/someone" not in html
    assert "/scratch/someone" not in html
    assert "root: longbench" in html
    assert "<title>made-up, longbench, 2024-07-19</title>" in html
    assert "<b>baseline</b>" not in html  # a prediction is text, never markup


def test_a_runs_page_reads_from_the_claim_to_the_samples(tmp_path):
    records = [record for record in made_up_records(12) if record.task == "qasper"]
    write_run_report(write_run(tmp_path / "run", records))
    html = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    parts = (
        "LazyLLM 2 has the highest TTFT speedup: ",
        " (n=12)",
        "<table>",
        "[brackets]: 95% interval",
        "tradeoff.png",
        "Sample by sample",
        "<th>won</th>",
        "<summary>qasper, sample",
        "provenance",
    )
    places = [html.index(part) for part in parts]
    assert places == sorted(places)
    assert html.count("\u2713") > 1 < html.count("\u2717")
    assert html.count("<summary>qasper, sample") == 12
    assert "A demonstration" not in html
    assert not re.search(r"overflow-x|white-space: nowrap", html)
    few = write_run(tmp_path / "few", [record for record in records if record.sample_id < "qasper-11"])
    write_run_report(few)
    assert "A demonstration: n=3 is too few for a claim." in (few / "index.html").read_text(encoding="utf-8")


def test_a_report_draws_every_model_and_counts_models_by_their_names(tmp_path):
    records = [record for record in made_up_records(12) if record.task == "qasper"]
    for number in range(5):
        write_run(tmp_path / "runs" / f"{number}", [replace(record, model=f"model {number}") for record in records])
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert 'src="tradeoff.png"' in html
    assert "<title>5 models, " in html
    drawn = settings_figure(load([tmp_path / "runs"]))
    assert drawn is not None
    assert [axes.get_title().split(" (")[0] for axes in drawn.axes] == [f"model {number}" for number in range(5)]
    for length in (900, 1500):
        task = {"name": "needle", "datasets": ["qasper"], "parameters": {"length": length}}
        write_run(tmp_path / "lengths" / f"{length}", records, task=task)
    write_report(load([tmp_path / "lengths"]), tmp_path / "out")
    assert "<title>made-up, needle, " in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_unscored_records_leave_scores_out_and_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = results_of([replace(r, score=None) for r in made_up_records(2) if r.task == "qasper"]).summary
    assert "score" not in summary
    assert not [name for name in summary if name.startswith("relative_score")]


def test_a_figure_that_the_results_do_not_hold_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", made_up_records(1))
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--only", "table1", "--only", "fig2"]) == 2
    assert "--only fig2: no run here holds what it shows" in capsys.readouterr().err
    assert (tmp_path / "out" / "index.html").exists()
