"""The page: self-contained, no machine's folders, no stray warnings.

--where keeps the records that fulfil its conditions, and the baselines that ratios refer to; it runs nothing.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import made_up_records, write_run

from lazybench.errors import UserError
from lazybench.report.__main__ import main
from lazybench.report.page import write_run_report
from lazybench.report.results import chosen, load
from lazybench.report.summary import records_frame, summarise
from lazybench.run.record import Record


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    records = [record for record in made_up_records(2) if record.task in ("qasper", "hotpotqa")]
    write_run(root / "run", records, data={"root": "/home/someone/longbench"}, out="/scratch/someone/run")
    assert main([str(root), "--only", "fig5"]) == 0
    return root


def test_page_needs_no_network_and_names_no_folder(page):
    html = (page / "report" / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert pictures == ["fig5.png"]
    assert all((page / "report" / name).is_file() for name in pictures)
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


@pytest.mark.parametrize(("others", "pictures"), [(1, ["tradeoff"]), (4, ["tradeoff", "tradeoff_2"])])
def test_a_report_draws_at_most_four_models_in_a_picture(tmp_path, others, pictures):
    records = [record for record in made_up_records(12) if record.task == "qasper"]
    write_run(tmp_path / "runs" / "many", records)
    for number in range(others):
        write_run(tmp_path / "runs" / f"{number}", [replace(record, model=f"other {number}") for record in records[:6]])
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.stem for path in tmp_path.glob("out/*.png")) == pictures
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert all(f'src="{name}.png"' in html for name in pictures)


def test_unscored_records_leave_scores_out_and_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(records_frame([[replace(r, score=None) for r in made_up_records(2) if r.task == "qasper"]]))
    assert "score" not in summary
    assert not [name for name in summary if name.startswith("relative_score")]


RECORDS = made_up_records(2)


def kept(*texts: str) -> list[Record]:
    return chosen(RECORDS, texts)


def test_a_word_and_a_number_choose_records() -> None:
    assert {record.task for record in kept("task == 'qasper'")} == {"qasper"}
    assert {record.task for record in kept("task != 'qasper'")} == {record.task for record in RECORDS} - {"qasper"}
    long = kept("prompt_tokens > 2000", "task in ['qasper', 'lcc']")
    assert long == kept("prompt_tokens > 2000 and (task == 'qasper' or task == 'lcc')")
    assert long == [record for record in RECORDS if record.prompt_tokens > 2000 and record.task in ("qasper", "lcc")]
    assert kept("truncated_from > 0") == []  # no number, no comparison


def test_a_condition_on_methods_keeps_the_baseline_of_its_samples() -> None:
    assert {record.method for record in kept("method == 'lazyllm'")} == {"baseline", "lazyllm"}
    assert {record.setting for record in kept("params == '{\"keep\": 0.7}'")} == {"{}", '{"keep": 0.7}'}
    lost = kept("method == 'lazyllm' and sample_id == 'qasper-0'")
    assert {(record.method, record.sample_id) for record in lost} == {("baseline", "qasper-0"), ("lazyllm", "qasper-0")}


def test_a_figure_that_the_results_do_not_hold_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", made_up_records(1))
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--only", "table1", "--only", "fig2"]) == 2
    assert "--only fig2: no run here holds what it shows" in capsys.readouterr().err
    assert (tmp_path / "out" / "index.html").exists()


def test_a_report_on_some_records_stands_on_these_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "run", RECORDS)
    results = load([tmp_path], ["task == 'qasper'", "method == 'lazyllm'"])
    assert set(results.summary["task"]) == {"qasper"}
    assert results.summary.set_index("method").loc["lazyllm", "ttft_speedup"].gt(1).all()
    asked = ["--only", "table1", "--where", "task == 'qasper'"]
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), *asked]) == 0
    assert "hotpotqa" not in (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8")
    assert "Single-document QA" in (tmp_path / "out" / "table1.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        *("tsk == 'qasper'", "task", "task = 'qasper'", "prompt_tokens > 'many'", "task @ 1", "@pandas", ""),
        *("__import__('os').system('true')", "task == 'qasper'; prompt_tokens = 3", "(x := 3) == 3", "'"),
    ],
)
def test_a_condition_that_cannot_be_asked_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="is not a condition on model, task, "):
        kept(text)


def test_conditions_that_nothing_fulfils_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run", RECORDS)
    with pytest.raises(UserError, match="task == 'nothing'"):
        load([tmp_path], ["task == 'nothing'"])
