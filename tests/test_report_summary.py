"""What the summary and the tables compute from records, against the same numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
from synthetic_results import METHODS, made_up_records, pruned, results_of, write_run

from lazybench.report import paper
from lazybench.report.__main__ import main as report
from lazybench.report.page import write_run_report
from lazybench.report.statistics import Estimate
from lazybench.report.tables import beside_the_papers, run_table, sections
from lazybench.report.text import format_estimate, short_names
from lazybench.run.record import Record


def summarise(records):
    return results_of(records).summary


RECORDS = made_up_records(samples=3)
SUMMARY = summarise(RECORDS)


def rows_of(summary, **wanted):
    for name, value in wanted.items():
        summary = summary[summary[name] == value]
    return summary


def records_of(task: str, method: str) -> list[Record]:
    return [record for record in RECORDS if record.task == task and record.method == method]


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


def test_a_run_without_a_baseline_takes_scores_and_bytes_from_another_but_never_times():
    measured = [replace(r, peak_memory_bytes=9, kv_bytes_end=8) for r in RECORDS if r.task == "qasper"]
    alone = [record for record in measured if record.method == "lazyllm" and record.params == METHODS[-1][1]]
    borrowing = [replace(record, params=pruned(keep=[0.3] * 3)) for record in alone]
    rows = results_of(borrowing, measured).samples
    own = rows[rows["params"] == alone[0].setting].set_index("sample_id")
    others = rows[rows["params"] == borrowing[0].setting].set_index("sample_id")
    for name in ("baseline_score", "baseline_kv_bytes_end", "baseline_output_tokens"):
        assert own[name].notna().all()
        assert others[name].loc[own.index].tolist() == own[name].tolist()
    assert others[["baseline_ttft_s", "baseline_generation_s", "baseline_peak_memory_bytes"]].isna().all(axis=None)


def test_repeats_are_put_together_before_samples_are_counted():
    drawn = [
        replace(record, repeat=repeat, score=score, ttft_s=seconds, decode_step_s=0.1)
        for record in records_of("qasper", "random_drop")
        for repeat, (score, seconds) in enumerate([(0.1, 1.0), (0.2, 5.0), (0.6, 2.0)])
    ]
    records = [*records_of("qasper", "baseline"), *drawn]
    row = rows_of(summarise(records), method="random_drop").iloc[0]
    assert row["n"] == 3
    assert row["score"] == pytest.approx(0.3)
    assert row["ttft_median_s"] == pytest.approx(2.0)
    samples = rows_of(results_of(records).samples, method="random_drop")
    assert samples["same_steps_s"].tolist() == pytest.approx([2.0 + 0.1 * 11] * 3)


def test_rows_follow_the_papers_order_and_categories_their_datasets():
    code = rows_of(SUMMARY, category="code", method="baseline")
    assert code["task"].tolist() == ["lcc", "repobench-p", ""]
    methods = list(dict.fromkeys(rows_of(SUMMARY, task="lcc")["method"]))
    assert methods == [name for name in list(dict.fromkeys(name for name, _ in METHODS)) if name in methods]
    assert list(dict.fromkeys(SUMMARY["category"])) == list(paper.CATEGORY_TITLES)


def test_table_2_holds_lazyllms_numbers_beside_the_papers():
    assert beside_the_papers(SUMMARY[SUMMARY["method"] != "lazyllm"], "table2") is None  # the paper's alone
    table = beside_the_papers(SUMMARY, "table2")
    first = table[table["category"] == paper.CATEGORY_TITLES["code"]].iloc[0]
    ours = rows_of(SUMMARY, level="category", category="code", method="lazyllm").iloc[0]
    assert (first["model"], first["n"]) == ("made-up", str(ours["n"]))
    assert first["prompt computed %"].startswith(f"{100 * ours['prompt_tokens_computed']:.2f}")
    assert first["overall speedup"].startswith(f"{ours['generation_speedup']:.2f}")
    (known,) = (row for row in paper.read("table2").to_dict("records") if row["category"] == "code")
    assert first["paper Llama 2 overall speedup"] == f"{known['llama2_generation_speedup']:.2f}"
    assert len(table) == 2 * len(paper.CATEGORY_TITLES)  # two schedules


def test_a_table_of_many_models_grows_by_rows_and_other_categories_follow_the_papers():
    records = [replace(r, model=f"model {place}") for place in range(9) for r in RECORDS if r.task == "lcc"]
    records += [replace(r, task="needle", category="embedded_needle") for r in records_of("qasper", "lazyllm")]
    table = beside_the_papers(summarise(records), "table1")
    assert len(table.columns) == 10
    assert list(dict.fromkeys(table["category"])) == [*paper.CATEGORY_TITLES.values(), "embedded needle"]
    of_code = table[(table["category"] == paper.CATEGORY_TITLES["code"]) & table["method"].str.startswith("LazyLLM")]
    assert len(of_code) == 9 * 2
    assert {"53.30", "1.94", "36.47", "3.47"} <= set(of_code.iloc[0])


def test_the_baselines_own_row_shows_no_interval_around_one():
    rows = summarise([r for r in made_up_records(12) if r.task == "lcc"])
    ((_, table),) = sections(rows, short_names(rows))
    assert table["TTFT speedup"][0] == "1.00"
    assert "[" in table["score"][0]
    assert "[" in table["TTFT speedup"][1]


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(0.68, 0.567, 0.791), "68.0 [57, 79]"),
        (Estimate(0.5), "50.0"),
        (Estimate(float("nan")), ""),
        (Estimate(float("inf")), ""),  # beside a baseline that scores nothing
        (Estimate(1.2, 0.5, float("inf")), "120.0 [50, ∞]"),
    ],
)
def test_an_estimate_is_written_one_way(estimate, shown):
    assert format_estimate(estimate, 1, 100, of_bounds=0) == shown


def test_generation_is_compared_over_equal_numbers_of_steps():
    plain = records_of("qasper", "baseline")
    short = [  # half of the steps, each as long as the baseline's: no gain but in TTFT
        replace(
            record, method="short", ttft_s=record.ttft_s / 2, output_tokens=6, generation_s=record.ttft_s / 2 + 0.25
        )
        for record in plain
    ]
    row = rows_of(summarise([*plain, *short]), method="short").iloc[0]
    expected = [(r.ttft_s + 11 * 0.05) / (r.ttft_s / 2 + 11 * 0.05) for r in plain]
    assert row["generation_speedup"] == pytest.approx(numpy.median(expected))
    assert row["generation_speedup"] < row["ttft_speedup"]


def test_the_table_fits_a_terminal_and_says_in_words_what_its_rows_leave_out():
    records = [
        replace(
            record,
            params={} if record.method == "baseline" else {**record.params, "a_long_parameter": "of many words " * 8},
            method="a_method_with_quite_a_long_name" if record.method == "random_drop" else record.method,
            truncated_from=9_000 if record.sample_id.endswith("-0") else None,
            error="OutOfMemoryError: too big" if record.sample_id == "qasper-11" else None,
        )
        for record in made_up_records(samples=12)
    ]
    text = run_table(summarise(records), ["a note on a run"])
    assert max(map(len, text.splitlines())) <= 120
    said = " ".join(text.split())
    for part in (
        "KL nats",
        "FLOPs ratio: ",
        "KL: ",
        "LazyLLM 2: ",
        "95% interval",
        "16 samples were longer",
        "6 records failed",
        "a note on a run",
    ):
        assert part in said, part


def test_a_difference_that_is_not_significant_is_marked():
    plain = [replace(records_of("qasper", "baseline")[0], sample_id=str(place)) for place in range(12)]
    noisy = [
        replace(record, method="lazyllm", params={}, ttft_s=record.ttft_s * factor)
        for record, factor in zip(plain, (0.8, 0.95, 1.3) * 4, strict=True)
    ]
    text = run_table(summarise([*plain, *noisy]))
    assert [line.count(" ? ") for line in text.splitlines() if line.startswith("| ")] == [0, 0, 1]
    assert "?: TTFT difference not significant" in " ".join(text.split())
    assert " ? |" not in run_table(summarise([*plain, *(replace(r, ttft_s=r.ttft_s / 2) for r in noisy)]))
    assert " ? |" not in run_table(summarise([*plain[:3], *noisy[:3]]))  # too few to say so


def test_a_run_whose_records_all_failed_has_a_report(tmp_path):
    failed = [replace(r, error="OutOfMemoryError: too big") for r in records_of("qasper", "lazyllm")]
    folder = write_run(tmp_path / "run", failed)
    write_run_report(folder)
    assert f"{len(failed)} records failed" in (folder / "table.md").read_text()
    assert report([str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    row = summarise(failed).iloc[0]
    assert (row["n"], row["failed"]) == (0, len(failed) // 2)  # of each of its two settings
    assert set(row.index) >= {"ttft_speedup", "flops_ratio", "fidelity_kl"}


def test_a_number_on_fewer_samples_than_its_row_has_no_interval_of_theirs():
    plain = [replace(records_of("qasper", "baseline")[0], sample_id=str(place)) for place in range(14)]
    lazy = [
        replace(r, method="lazyllm", params={}, ttft_s=r.ttft_s / (1.2 + place / 100)) for place, r in enumerate(plain)
    ]
    summary = summarise([*plain[:8], *(replace(r, error="OutOfMemoryError: too big") for r in plain[8:]), *lazy])
    row = rows_of(summary, method="lazyllm").iloc[0]
    assert (row["n"], row["n_paired"]) == (14, 8)
    assert row["ttft_speedup"] == pytest.approx((1.23 * 1.24) ** 0.5)  # between two ratios: of their logarithms
    assert numpy.isnan(row["ttft_speedup_low"])
    assert row["score_low"] < row["score"] < row["score_high"]
