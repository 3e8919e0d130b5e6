"""The page: self-contained, no machine's folders, no stray warnings."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import pytest
from synthetic_results import made_up_records, write_run

from lazybench.report.__main__ import main
from lazybench.report.page import write_run_report
from lazybench.report.summary import records_frame, summarise


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    records = [record for record in made_up_records(2) if record.task in ("qasper", "hotpotqa")]
    write_run(root / "run", records, data={"root": "/home/someone/longbench"}, out="/scratch/someone/run")
    assert main([str(root), "--only", "table1", "--only", "fig5"]) == 0
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


def test_paper_numbers_stand_beside_ours(page):
    table = (page / "report" / "table1.md").read_text(encoding="utf-8")
    line = next(line for line in table.splitlines() if "Multi-document QA" in line and "LazyLLM" in line)
    assert all(number in line for number in ("22.31", "2.34", "20.68", "2.65"))
    assert (page / "report" / "table.md").read_text(encoding="utf-8").count("LazyLLM") >= 2


def record(method, sample, ttft, score, task="qasper", **more):
    like = next(r for r in made_up_records(1) if (r.task, r.method) == (task, method))
    return replace(like, sample_id=sample, ttft_s=ttft, score=score, **more)


def test_speedup_is_the_median_of_paired_ratios():
    records = [
        *(record("baseline", "a", 1.0, 0.5), record("baseline", "b", 5.0, 0.5), record("baseline", "c", 99.0, 0.5)),
        *(record("random_drop", "a", 1.0, 0.25), record("random_drop", "b", 2.0, 0.5)),
        record("random_drop", "c", None, None, error="out of memory"),
    ]
    row = summarise(records_frame([records])).set_index("method").loc["random_drop"]
    assert (row["n"], row["failed"]) == (2, 1)
    assert row["ttft_speedup"] == pytest.approx((1.0 * 2.5) ** 0.5)  # between two ratios: of their logarithms
    assert row["relative_score"] == pytest.approx(0.75)


def test_unscored_records_leave_scores_out_and_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(records_frame([[replace(r, score=None) for r in made_up_records(2) if r.task == "qasper"]]))
    assert "score" not in summary
    assert not [name for name in summary if name.startswith("relative_score")]
