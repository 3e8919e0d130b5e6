"""Tables of docs/questions.md: overall speedups from their parts, and loss over length by the samples themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from synthetic_results import made_up_records, write_run

from lazybench.report import artefacts, lengths, overall
from lazybench.report.results import load
from lazybench.run.record import Record


@pytest.mark.parametrize(("ttft", "whole"), [(1.94, 1.01), (2.34, 1.56), (1.36, 1.34)])  # the paper's table 1 and 2
def test_what_two_speedups_imply_gives_them_back(ttft: float, whole: float) -> None:
    share = overall.implied_share(ttft, whole)
    assert overall.overall(share, ttft) == pytest.approx(whole)
    assert overall.overall(0.23, ttft, overall.implied_step(0.23, ttft, whole)) == pytest.approx(whole)


def test_a_whole_above_its_part_implies_no_share() -> None:
    assert numpy.isnan(overall.implied_share(1.2, 1.3))
    assert numpy.isnan(overall.implied_share(0.9, 1.0))


def timed(method: str, ttft: float, step: float, sample: str = "0") -> Record:
    steps = 11
    blank = Record("made-up", "lcc", "code", method, "", sample, 0, 1500, output_tokens=steps)
    return replace(blank, ttft_s=ttft, decode_step_s=step, generation_s=ttft + step * (steps - 1))


def test_the_parts_explain_the_whole(tmp_path: Path) -> None:
    """1 s of prefill and 1 s of decoding: a prefill twice as fast and steps half as fast again save nothing."""
    records = [timed("baseline", 1.0, 0.1), timed("lazyllm", 0.5, 0.15)]
    write_run(tmp_path / "run", records)
    results = load([tmp_path])
    caption, table = artefacts.build_tables(results, ("overall",))["overall"]
    assert "prefill" in caption
    ours = table.iloc[0]
    assert list(ours[["TTFT speedup", "prefill %", "decoding step x"]]) == ["2.00", "50", "1.50"]
    assert list(ours[["overall speedup", "overall if steps cost the same"]]) == ["1.00", "1.33"]
    code = table[(table["model"] == overall.OF_PAPER) & (table["category"] == "Code completion")].iloc[0]
    assert (code["TTFT speedup"], code["overall speedup"], code["prefill %"]) == ("1.94", "1.01", "2")


def test_every_task_weighs_the_same_in_the_overall_table(tmp_path: Path) -> None:
    quick = [timed(*one, 0.1, str(place)) for place in range(9) for one in (("baseline", 1.0), ("lazyllm", 0.5))]
    long = [replace(timed(method, 3.0, 0.1), task="repobench-p") for method in ("baseline", "lazyllm")]
    write_run(tmp_path / "run", [*quick, *long])
    ours = overall.table(load([tmp_path]).samples).iloc[0]
    assert ours["prefill %"] == "67"  # (1 + 3) of (2 + 4) seconds
    assert ours["TTFT speedup"] == "1.41"  # between 2 and 1, as the summary has it


def test_records_without_times_have_no_overall_table(tmp_path: Path) -> None:
    untimed = [
        replace(record, ttft_s=None, decode_step_s=None, generation_s=None)
        for record in made_up_records(1)
        if record.task == "lcc"
    ]
    write_run(tmp_path / "run", untimed)
    assert "overall" not in artefacts.build_tables(load([tmp_path]), ("overall",))


def at_lengths(tmp_path: Path, growth: dict[str, float], samples: int = 12) -> Path:
    """Runs at 250, 500 and 1,000 tokens; KL is how hard a sample is, times a power of its prompt's length."""
    random = numpy.random.default_rng(0)
    hard = random.lognormal(0, 2, samples)
    for tokens in (250, 500, 1000):
        records = [
            Record(
                *("made-up", "needle", "embedded_needle", method, "keep=0.5", str(place), 0, tokens + place),
                fidelity_kl=float(100 * hard[place] * (tokens + place) ** power),
            )
            for method, power in growth.items()
            for place in range(samples)
        ]
        task = {"name": "needle", "datasets": ["needle"], "parameters": {"length": tokens}}
        write_run(tmp_path / str(tokens), records, task=task)
    return tmp_path


def test_the_growth_of_the_loss_is_each_samples_own(tmp_path: Path) -> None:
    table = lengths.table(load([at_lengths(tmp_path, {"lazyllm": 1.0, "gemfilter": 0.0, "fastkv": -1.0})]))
    rows = table.set_index("method")["per doubling"]
    assert rows["LazyLLM, keep=0.5"] == "2.00 [2.00, 2.00]"  # exact, however much the samples differ
    assert rows["GemFilter, keep=0.5"] == "1.00 [1.00, 1.00]"
    assert rows["FastKV, keep=0.5"] == "0.50 [0.50, 0.50]"
    assert list(table["n"]) == ["12"] * 3
    assert {"255 tokens", "505 tokens", "1005 tokens"} <= set(table.columns)


def test_a_document_that_no_limit_cuts_says_nothing_of_growth(tmp_path: Path) -> None:
    folder = at_lengths(tmp_path, {"lazyllm": 1.0})
    for tokens in (250, 500, 1000):
        path = folder / str(tokens) / "samples.jsonl"
        lines = path.read_text().splitlines()
        short = json.loads(lines[0]) | {"sample_id": "short", "prompt_tokens": 240 + tokens // 250}
        short["fidelity_kl"] = 1.0 + tokens  # as if a few tokens had made it four times harder
        path.write_text("\n".join([*lines, json.dumps(short)]) + "\n")
    (row,) = lengths.table(load([folder])).to_dict("records")
    assert (row["n"], row["per doubling"]) == ("13", "2.00 [2.00, 2.00]")


def test_one_length_says_nothing_of_growth(tmp_path: Path) -> None:
    folder = at_lengths(tmp_path, {"lazyllm": 1.0})
    assert lengths.table(load([folder / "500"])).empty


def test_figures_6_and_7_need_no_clock(tmp_path: Path) -> None:
    methods = [("baseline", ""), *(("lazyllm", f"depths={depth} keep=0.3") for depth in (0.1, 0.5, 0.9))]
    untimed = [
        replace(record, ttft_s=None, decode_step_s=None, generation_s=None)
        for record in made_up_records(2, methods=methods)
    ]
    write_run(tmp_path / "run", untimed)
    names = [name for name, _, _ in artefacts.build_figures(load([tmp_path]), ("fig5", "fig6", "fig7"))]
    assert names == ["fig6", "fig6_fidelity", "fig7"]


def test_runs_that_differ_in_more_than_the_length_are_not_set_side_by_side(tmp_path: Path) -> None:
    folder = at_lengths(tmp_path, {"lazyllm": 1.0})
    config = folder / "1000" / "config.yaml"
    config.write_text(config.read_text().replace("name: made-up", "name: made-up\n  dtype: bfloat16"))
    table = lengths.table(load([folder]))
    assert [column for column in table if column.endswith("tokens")] == ["255 tokens", "505 tokens"]


def test_another_task_of_the_same_method_leaves_the_table_as_it_is(tmp_path: Path) -> None:
    folder = at_lengths(tmp_path, {"lazyllm": 1.0})
    alone = lengths.table(load([folder]))
    other = next(record for record in made_up_records(1) if record.method == "lazyllm")
    write_run(tmp_path / "other", [replace(other, variant="keep=0.5", fidelity_kl=0.1)])
    assert lengths.table(load([tmp_path])).equals(alone)
