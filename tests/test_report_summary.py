"""What the summary and the tables compute from records, against the same numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
from synthetic_results import made_up_records

from lazybench.report import paper
from lazybench.report.summary import summarise, summarise_runs
from lazybench.report.tables import category_titles, readable, run_table, table1, table2
from lazybench.store.record import Record

RECORDS = made_up_records(samples=3)
SUMMARY = summarise(RECORDS)


def rows_of(summary, **wanted):
    for name, value in wanted.items():
        summary = summary[summary[name] == value]
    return summary


def records_of(task: str, method: str) -> list[Record]:
    return [record for record in RECORDS if record.task == task and record.method == method]


def with_scores(scores: dict[str, list[float]], method: str, task: str = "qasper") -> list[Record]:
    """Records of one task: the baseline's scores and the method's."""
    plain = replace(records_of("qasper", "baseline")[0], task=task)
    pairs = zip(scores["baseline"], scores[method], strict=True)
    return [
        replace(plain, method=name, variant="", sample_id=str(place), score=value)
        for place, pair in enumerate(pairs)
        for name, value in zip(("baseline", method), pair, strict=True)
    ]


def test_a_categorys_score_is_the_mean_of_its_datasets_whatever_their_sizes():
    tasks = ("qasper", "narrativeqa", "multifieldqa_en")
    uneven = [record for record in RECORDS if record.task != "qasper" or record.sample_id == "qasper-0"]
    row = rows_of(summarise(uneven), level="category", category="single_doc_qa", method="random_drop").iloc[0]
    means = [
        numpy.mean([record.score for record in uneven if (record.task, record.method) == (task, "random_drop")])
        for task in tasks
    ]
    assert row["score"] == pytest.approx(numpy.mean(means))
    assert row["n"] == 1 + 3 + 3


def test_a_categorys_speedup_weighs_its_datasets_equally():
    tasks = ("lcc", "repobench-p")
    row = rows_of(SUMMARY, level="category", category="code", method="static_pruning").iloc[0]
    sums = {
        method: sum(numpy.mean([record.ttft_s for record in records_of(task, method)]) for task in tasks)
        for method in ("baseline", "static_pruning")
    }
    assert row["ttft_speedup"] == pytest.approx(sums["baseline"] / sums["static_pruning"])
    assert row["ttft_speedup_low"] < row["ttft_speedup"] < row["ttft_speedup_high"]


def test_one_sample_has_no_interval_and_no_verdict():
    row = rows_of(summarise(made_up_records(samples=1)), level="task", task="trec", method="random_drop").iloc[0]
    assert numpy.isnan(row["score_low"])
    assert numpy.isnan(row["ttft_speedup_high"])
    assert row["verdict"] == "undecided at n=1"


def test_a_baseline_that_scores_nothing_gives_no_relative_score():
    (row,) = rows_of(
        summarise(with_scores({"baseline": [0.0] * 12, "lazyllm": [0.5] * 12}, "lazyllm")), method="lazyllm"
    ).to_dict("records")
    assert not numpy.isfinite(row["relative_score"])
    assert row["verdict"] == "undecided at n=12"
    assert "inf" not in run_table(summarise(with_scores({"baseline": [0.0] * 2, "lazyllm": [1.0] * 2}, "lazyllm")), {})


@pytest.mark.parametrize(
    ("scores", "said"),
    [([0.5] * 12, "within 1%"), ([0.4] * 12, "worse"), ([0.9, 0.1] * 6, "undecided at n=12")],
)
def test_the_one_percent_claim_follows_the_paired_interval(scores, said):
    records = with_scores({"baseline": [0.5] * 12, "lazyllm": scores}, "lazyllm")
    assert rows_of(summarise(records), method="lazyllm")["verdict"].tolist() == [said]


def test_repeats_are_put_together_before_samples_are_counted():
    drawn = [
        replace(record, repeat=repeat, score=score, ttft_s=seconds)
        for record in records_of("qasper", "random_drop")
        for repeat, (score, seconds) in enumerate([(0.1, 1.0), (0.2, 5.0), (0.6, 2.0)])
    ]
    row = rows_of(summarise([*records_of("qasper", "baseline"), *drawn]), method="random_drop").iloc[0]
    assert row["n"] == 3
    assert row["score"] == pytest.approx(0.3)  # mean of scores, median of times
    assert row["ttft_median_s"] == pytest.approx(2.0)
    assert row["score_sd_of_repeats"] == pytest.approx(numpy.std([0.1, 0.2, 0.6], ddof=1))


def test_speedups_pair_within_a_run_only():
    slow = [replace(record, ttft_s=10 * (record.ttft_s or 0)) for record in records_of("qasper", "baseline")]
    lazy = [replace(record, variant="other") for record in records_of("qasper", "lazyllm")[:1]]
    summary = summarise_runs([records_of("qasper", "baseline"), [*slow, *lazy]])
    expected = (slow[0].ttft_s or 0) / (lazy[0].ttft_s or 1)
    assert rows_of(summary, variant="other")["ttft_speedup"].tolist() == [pytest.approx(expected)]


def test_rows_follow_the_papers_order_and_categories_their_datasets():
    code = rows_of(SUMMARY, category="code", method="baseline")
    assert code["task"].tolist() == ["lcc", "repobench-p", ""]
    methods = list(dict.fromkeys(rows_of(SUMMARY, task="lcc")["method"]))
    assert methods == [name for name in paper.METHOD_TITLES if name in methods]
    assert list(dict.fromkeys(SUMMARY["category"])) == list(paper.CATEGORY_TITLES)


def test_table_2_holds_lazyllms_numbers_beside_the_papers():
    table = table2(SUMMARY)
    first = table[table["category"] == paper.CATEGORY_TITLES["code"]].iloc[0]
    (ours,) = rows_of(
        SUMMARY, level="category", category="code", method="lazyllm", variant=first["method"].removeprefix("LazyLLM, ")
    ).to_dict("records")
    assert first["made-up prompt computed %"].startswith(f"{100 * ours['prompt_tokens_computed']:.2f}")
    assert first["made-up generation speedup"].startswith(f"{ours['generation_speedup']:.2f}")
    (known,) = (row for row in paper.table2().to_dict("records") if row["category"] == "code")
    assert first["paper Llama 2 generation speedup"] == f"{known['llama2_generation_speedup']:.2f}"
    assert len(table) == 2 * len(paper.CATEGORY_TITLES)  # two schedules


def test_other_categories_follow_the_papers_under_their_own_names():
    records = [replace(record, task="needle", category="embedded_needle") for record in records_of("qasper", "lazyllm")]
    table = table1(summarise(records))
    assert list(dict.fromkeys(table["category"])) == [*paper.CATEGORY_TITLES.values(), "embedded needle"]
    assert category_titles(SUMMARY) == paper.CATEGORY_TITLES


def test_the_baselines_own_row_shows_no_interval_around_one():
    shown = readable(rows_of(SUMMARY, level="task", task="lcc")).iloc[0]
    assert shown["TTFT speedup"] == "1.00"
    assert shown["relative score %"] == "100.0"
    assert "[" in shown["score"]
