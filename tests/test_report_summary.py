"""What the summary and the tables compute from records, against the same numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pandas
import pytest
from synthetic_results import METHODS, made_up_records, write_run

from lazybench.report import paper, write_run_report
from lazybench.report.__main__ import main as report
from lazybench.report.names import category_titles
from lazybench.report.samples import paired_samples
from lazybench.report.summary import summarise, summarise_runs
from lazybench.report.tables import readable, run_table, table1, table2
from lazybench.run.record import Record

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
    assert row["ttft_speedup_of_sums"] == pytest.approx(sums["baseline"] / sums["static_pruning"])
    assert row["ttft_speedup_low"] < row["ttft_speedup"] < row["ttft_speedup_high"]
    assert row["bounds"] == "lowest to highest"  # two tasks of three samples


def test_repeats_are_put_together_by_the_median_of_every_time():
    repeats = [
        replace(record, repeat=repeat, ttft_s=ttft_s, decode_step_s=0.1)
        for record in records_of("qasper", "baseline")[:1] + records_of("qasper", "lazyllm")[:1]
        for repeat, ttft_s in enumerate((1.0, 1.2, 9.0))
    ]
    rows = paired_samples([repeats])
    assert rows["ttft_s"].tolist() == [1.2, 1.2]
    assert rows["same_steps_s"].tolist() == pytest.approx([1.2 + 0.1 * 11] * 2)


def test_a_run_without_a_baseline_takes_scores_and_bytes_from_another_but_never_times():
    measured = [replace(r, peak_memory_bytes=9, kv_bytes_end=8) for r in RECORDS if r.task == "qasper"]
    alone = [record for record in measured if record.method == "lazyllm" and record.variant == METHODS[-1][1]]
    rows = paired_samples([[replace(record, variant="keep=0.3") for record in alone], measured])
    own = rows[rows["variant"] == alone[0].variant].set_index("sample_id")
    others = rows[rows["variant"] == "keep=0.3"].set_index("sample_id")
    for name in ("baseline_score", "baseline_kv_bytes_end", "baseline_output_tokens"):
        assert own[name].notna().all()
        assert others[name].loc[own.index].tolist() == own[name].tolist()
    assert others[["baseline_ttft_s", "baseline_generation_s", "baseline_peak_memory_bytes"]].isna().all(axis=None)


def test_one_sample_is_its_own_range_and_has_no_verdict():
    row = rows_of(summarise(made_up_records(samples=1)), level="task", task="trec", method="random_drop").iloc[0]
    assert row["score_low"] == row["score"] == row["score_high"]
    assert (row["bounds"], row["clock"]) == ("lowest to highest", "")
    assert row["verdict"] == "undecided at n=1"


def test_a_baseline_that_scores_nothing_gives_no_relative_score():
    (row,) = rows_of(
        summarise(with_scores({"baseline": [0.0] * 12, "lazyllm": [0.5] * 12}, "lazyllm")), method="lazyllm"
    ).to_dict("records")
    assert not numpy.isfinite(row["relative_score"])
    assert row["verdict"] == "undecided at n=12"
    assert "inf" not in run_table(summarise(with_scores({"baseline": [0.0] * 2, "lazyllm": [1.0] * 2}, "lazyllm")))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.5] * 300, "within 1%"),
        ([0.4] * 30, "worse"),
        ([0.9, 0.1] * 15, "undecided at n=30"),
        ([0.5] * 30, "undecided at n=30"),
        ([0.4] * 29, "undecided at n=29"),
    ],
)
def test_the_one_percent_claim_is_made_where_the_samples_suffice(scores, said):
    records = with_scores({"baseline": [0.5] * len(scores), "lazyllm": scores}, "lazyllm")
    assert rows_of(summarise(records), method="lazyllm")["verdict"].tolist() == [said]


def test_claims_are_corrected_for_their_number():
    """A loss that is significant alone is not among twenty."""
    alone = with_scores({"baseline": [0.5] * 40, "lazyllm": [0.5] * 30 + [0.0] * 10}, "lazyllm")
    assert rows_of(summarise(alone), method="lazyllm")["verdict"].tolist() == ["worse"]
    among = [
        replace(record, variant=str(copy)) for copy in range(20) for record in alone if record.method != "baseline"
    ]
    same = [replace(record, score=0.5 if int(record.variant) else record.score) for record in among]
    baseline = [record for record in alone if record.method == "baseline"]
    assert set(rows_of(summarise([*baseline, *same]), variant="0")["verdict"]) == {"undecided at n=40"}


def test_repeats_are_put_together_before_samples_are_counted():
    drawn = [
        replace(record, repeat=repeat, score=score, ttft_s=seconds)
        for record in records_of("qasper", "random_drop")
        for repeat, (score, seconds) in enumerate([(0.1, 1.0), (0.2, 5.0), (0.6, 2.0)])
    ]
    row = rows_of(summarise([*records_of("qasper", "baseline"), *drawn]), method="random_drop").iloc[0]
    assert row["n"] == 3
    assert row["score"] == pytest.approx(0.3)
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
    assert list(dict.fromkeys(table["category"])) == ["embedded needle"]  # the paper has no row for it
    both = table1(summarise([*records, *records_of("qasper", "lazyllm")]))
    assert list(dict.fromkeys(both["category"])) == [*paper.CATEGORY_TITLES.values(), "embedded needle"]
    assert category_titles(SUMMARY) == paper.CATEGORY_TITLES


def test_the_baselines_own_row_shows_no_interval_around_one():
    shown = readable(rows_of(SUMMARY, level="task", task="lcc")).iloc[0]
    assert shown["TTFT speedup"] == "1.00"
    assert shown["relative score %"] == "100.0"
    assert "(" in shown["score"]


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
    assert row["generation_speedup_raw"] > row["generation_speedup"]


def test_claims_are_drawn_against_the_faster_of_the_engines_with_nothing_pruned():
    plain = records_of("qasper", "baseline")
    quick = [replace(r, method="lazyllm", variant="nothing pruned", ttft_s=r.ttft_s / 1.25) for r in plain]
    lazy = [replace(r, method="lazyllm", variant="layers=1", ttft_s=r.ttft_s / 2, flops_ratio=1.9) for r in plain]
    summary = summarise([*plain, *quick, *lazy])
    row = rows_of(summary, variant="layers=1").iloc[0]
    assert row["ttft_speedup"] == pytest.approx(2.0)
    assert row["ttft_speedup_against_fastest"] == pytest.approx(1.6)
    assert row["fastest_of_ttft"] == "lazyllm nothing pruned"
    assert "TTFT 1.60x (over lazyllm nothing pruned)" in " ".join(run_table(summary).split())
    slow = [replace(r, ttft_s=2 * r.ttft_s, generation_s=2 * r.generation_s, decode_step_s=0.1) for r in quick]
    row = rows_of(summarise([*plain, *slow, *lazy]), variant="layers=1").iloc[0]
    assert (row["ttft_speedup_against_fastest"], row["fastest_of_ttft"]) == (pytest.approx(2.0), "baseline")


def test_the_table_fits_a_terminal_and_says_in_words_what_its_rows_leave_out():
    records = [
        replace(
            record,
            variant="" if record.method == "baseline" else "a long list of parameters " * 4 + record.variant,
            method="a_method_with_quite_a_long_name" if record.method == "random_drop" else record.method,
            truncated_from=9_000 if record.sample_id.endswith("-0") else None,
            error="OutOfMemoryError: too big" if record.sample_id == "qasper-11" else None,
        )
        for record in made_up_records(samples=12)
    ]
    text = run_table(summarise(records), ["a note on a run"])
    assert max(map(len, text.splitlines())) <= 120
    said = " ".join(text.split())
    for part in ("LazyLLM 2: ", "95% interval", "16 samples were longer", "6 records failed", "a note on a run"):
        assert part in said, part


def test_claims_about_one_percent_stand_below_the_table():
    worse = with_scores({"baseline": [0.5] * 30, "lazyllm": [0.4] * 30}, "lazyllm")
    assert "LazyLLM on qasper loses more than 1% of the score. Claims" in " ".join(run_table(summarise(worse)).split())
    few = with_scores({"baseline": [0.5] * 29, "lazyllm": [0.4] * 29}, "lazyllm")
    assert "1%" not in run_table(summarise(few))


def test_what_the_clock_did_not_decide_is_said():
    plain = records_of("qasper", "baseline")
    noisy = [
        replace(record, method="lazyllm", variant="", ttft_s=record.ttft_s * factor)
        for record, factor in zip(plain, (0.8, 0.95, 1.3), strict=True)
    ]
    summary = summarise([*plain, *noisy])
    assert rows_of(summary, method="lazyllm")["clock"].tolist() == ["undecided"]
    assert "undecided, the clock's spread is larger than the effect" in run_table(summary)
    assert "undecided" not in run_table(summarise([*plain, *(replace(r, ttft_s=r.ttft_s / 2) for r in noisy)]))


def test_a_run_whose_records_all_failed_has_a_report(tmp_path):
    failed = [replace(r, error="OutOfMemoryError: too big") for r in records_of("qasper", "lazyllm")]
    folder = write_run(tmp_path / "run", failed)
    assert write_run_report(folder) == []
    assert f"{len(failed)} records failed" in (folder / "table.md").read_text()
    assert report([str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    row = summarise(failed).iloc[0]
    assert (row["n"], row["failed"]) == (0, len(failed) // 2)  # of each of its two settings
    assert set(row.index) >= {"ttft_speedup", "flops_ratio", "fidelity_kl"}


def test_a_number_on_fewer_samples_than_its_row_has_the_bounds_of_its_own():
    plain = [replace(records_of("qasper", "baseline")[0], sample_id=str(place)) for place in range(14)]
    lazy = [
        replace(r, method="lazyllm", variant="", ttft_s=r.ttft_s / (1.2 + place / 100)) for place, r in enumerate(plain)
    ]
    summary = summarise([*plain[:8], *(replace(r, error="OutOfMemoryError: too big") for r in plain[8:]), *lazy])
    row = rows_of(summary, method="lazyllm").iloc[0]
    assert (row["n"], row["bounds"], row["ttft_speedup_bounds"]) == (14, "95% interval", "lowest to highest")
    assert (row["ttft_speedup_low"], row["ttft_speedup_high"]) == pytest.approx((1.20, 1.27))
    text = run_table(summary)
    assert "(1.20–1.27)" in text
    assert "(parentheses)" in text


def test_engines_that_never_met_in_one_run_are_not_compared():
    plain = records_of("qasper", "baseline")
    whole = [replace(r, method="lazyllm", variant="nothing pruned", flops_ratio=1.0) for r in plain]
    lazy = [replace(r, method="lazyllm", variant="layers=1", ttft_s=r.ttft_s / 2, flops_ratio=1.9) for r in plain]
    row = rows_of(summarise_runs([[*plain, *whole], lazy]), variant="layers=1").iloc[0]
    assert "fastest_of_ttft" not in row or pandas.isna(row["fastest_of_ttft"])
