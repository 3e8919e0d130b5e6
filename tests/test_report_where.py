"""--where keeps the records that fulfil its conditions, and the baselines that ratios refer to; it runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_results import made_up_records, write_run

from lazybench.errors import UserError
from lazybench.report.__main__ import main
from lazybench.report.results import chosen, load
from lazybench.run.record import Record

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
