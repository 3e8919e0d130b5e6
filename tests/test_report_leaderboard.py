"""The leaderboard on made-up records: matched between two settings, never beyond them; pairs on the same samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from synthetic_results import pruned, write_run

from lazybench.report.curves import FLOPS, MEMORY
from lazybench.report.leaderboard import Section, main, measured_settings, readable, sections
from lazybench.report.results import Results, load
from lazybench.run.record import Record

SAMPLES = 24
SLOPES = {"lazyllm": 1.0, "random_drop": 1.5}  # of log KL over log ratio
KEEPS = {0.5: 1.25, 0.3: 1.6, 0.2: 2.5}  # keep ratio to FLOPs ratio
BLANK = Record("made-up", "qasper", "single_doc", "baseline", {}, "0", 0, 1000, output_tokens=4)


def params_of(method: str, keep: float) -> dict[str, Any]:
    """Settings that differ in how much they keep alone."""
    return {"keep": keep} if method != "lazyllm" else pruned(layers=[3], keep=[keep])


def never_revived(record: Record) -> Record:
    return replace(record, params={"pruning": {**record.params["pruning"], "revive": False}})


def judged(samples: int = SAMPLES, jumpy: tuple[str, ...] = ()) -> list[Record]:
    """Without a clock. KL is a power of the FLOPs ratio, times how hard the sample is."""
    random = numpy.random.default_rng(3)
    records = []
    for place in range(samples):
        sample = replace(BLANK, task=("qasper", "trec")[place % 2], sample_id=str(place), score=0.8)
        records.append(replace(sample, flops_ratio=1.0, kv_bytes_end=1000, aux_bytes_end=0, fidelity_kl=0.0))
        hard = random.lognormal(0, 1)
        for method, slope in SLOPES.items():
            for keep, ratio in KEEPS.items():
                kl = 0.01 * hard * ratio**slope * (random.lognormal(0, 0.1) if method in jumpy else 1)
                one = replace(sample, method=method, params=params_of(method, keep), flops_ratio=ratio, score=0.4)
                one = replace(one, kv_bytes_end=int(1000 * keep), aux_bytes_end=100)
                records.append(replace(one, fidelity_kl=kl, fidelity_first_kl=kl, fidelity_top1=1 - keep / 2))
    return records


def results(folder: Path, records: list[Record]) -> Results:
    write_run(folder / "run", records, timing=False)
    return load([folder])


def board(folder: Path, records: list[Record]) -> str:
    """The leaderboard on these records, as it is written."""
    results(folder, records)
    assert main([str(folder), "--out", str(folder / "board")]) == 0
    return (folder / "board" / "leaderboard.md").read_text(encoding="utf-8")


def at(found: list[Section], speed: float, matched: str = FLOPS) -> Section:
    (section,) = (one for one in found if (one.ratio, one.matched) == (speed, matched))
    return section


def test_between_two_settings_a_power_law_is_met_exactly(tmp_path: Path) -> None:
    section = at(sections(results(tmp_path, judged())), 2.0)
    for curve, samples in zip(section.curves, section.samples, strict=True):
        lower = curve.settings[0].samples["fidelity_kl"]
        expected = lower * (2.0 / 1.25) ** SLOPES[curve.name[0]]
        pandas.testing.assert_series_equal(samples["fidelity_kl"], expected.loc[samples.index], rtol=1e-9)
    table = section.table().set_index("method")
    share = numpy.log(2 / 1.6) / numpy.log(2.5 / 1.6)
    row = table.loc["LazyLLM"]
    assert row["kv_ratio"] == pytest.approx((1 - share) * 0.3 + share * 0.2)
    assert row["aux_ratio"] == pytest.approx(0.1)
    assert row["relative_score"] == pytest.approx(0.5)
    assert row["kl_later"] == pytest.approx(row["kl_first"]) == row["kl"]
    assert row["n"] == SAMPLES
    assert row["kl_low"] < row["kl"] < row["kl_high"]
    assert table["ttft_speedup"].isna().all()


def test_nothing_is_extrapolated_and_that_is_said(tmp_path: Path) -> None:
    text = board(tmp_path, judged())
    beyond = at(sections(load([tmp_path])), 3.0).table()
    assert beyond["n"].eq(0).all()
    assert beyond[["kl", "same_token", "relative_score", "kv_ratio", "aux_ratio"]].isna().all(axis=None)
    assert text.startswith("Built by `python -m lazybench leaderboard ")
    assert "at a FLOPs ratio of 3x there is no number: no two measured settings of a method bracket it." in text
    assert "**made-up at a FLOPs ratio of 3x**" not in text
    assert {file.name for file in (tmp_path / "board").iterdir()} == {"leaderboard.md", "leaderboard.html", "front.png"}
    one = [record for record in judged() if record.flops_ratio in (1.0, 1.6)]
    text = board(tmp_path / "one", one)
    assert "**made-up: every setting**" in text
    assert text.count("there is no number") == 3
    assert "Fixed: " not in text  # no such column


def test_each_method_is_compared_with_the_closest_on_the_samples_of_both(tmp_path: Path) -> None:
    lost = [r for r in judged(jumpy=tuple(SLOPES)) if not (r.method == "random_drop" and r.sample_id in ("0", "1"))]
    section = at(sections(results(tmp_path, lost)), 2.0)
    assert [len(samples) for samples in section.samples] == [SAMPLES, SAMPLES - 2]
    closest, other = section.table().to_dict("records")
    assert (closest["method"], other["method"]) == ("LazyLLM", "Random token drop")
    assert closest["kl_high"] > other["kl_low"]  # samples differ tenfold: only pairs can tell
    assert numpy.isnan(closest["over_closest"])
    assert other["over_closest"] == pytest.approx(2**0.5, rel=0.1)
    assert 1 < other["over_closest_low"] < other["over_closest"] < other["over_closest_high"]


def test_samples_that_were_timed_too_have_speedups_of_their_own(tmp_path: Path) -> None:
    """Twice the FLOPs ratio's logarithm."""
    timed = [
        replace(r, ttft_s=4.0 / float(r.flops_ratio or 1) ** 2, decode_step_s=0.1 if r.method == "baseline" else 0.2)
        for r in judged(4)
    ]
    by_flops = at(sections(results(tmp_path, timed)), 2.0).table().set_index("method")
    share = numpy.log(2 / 1.6) / numpy.log(2.5 / 1.6)
    expected = 1.6 ** (2 * (1 - share)) * 2.5 ** (2 * share)
    assert by_flops["ttft_speedup"].tolist() == pytest.approx([expected] * 2)
    assert by_flops["decode_step_ratio"].tolist() == pytest.approx([2.0, 2.0])


def test_a_speed_is_of_all_samples_work_together(tmp_path: Path) -> None:
    """Half of the prompts left whole, at no loss: neither the median ratio nor a divergence of next to nothing."""
    spared = [
        replace(r, flops_ratio=1.0, fidelity_kl=1e-12) if r.method == "lazyllm" and int(r.sample_id) % 4 < 2 else r
        for r in judged()
    ]
    curve = at(sections(results(tmp_path, spared)), 2.0).curves[0]
    assert curve.ratios == pytest.approx([2 / (1 + 1 / ratio) for ratio in KEEPS.values()])
    whole = curve.at(curve.ratios[0])["fidelity_kl"]
    assert whole.min() == pytest.approx(1e-4)


def test_between_a_setting_that_leaves_most_prompts_whole_and_another_is_nothing(tmp_path: Path) -> None:
    rare = [
        replace(r, flops_ratio=1.0)
        if r.params == params_of("lazyllm", 0.5) and int(r.sample_id) % 3 and r.method == "lazyllm"
        else r
        for r in judged()
    ]
    curve = next(one for one in at(sections(results(tmp_path, rare)), 2.0).curves if one.name[0] == "lazyllm")
    assert curve.ratios[0] < 1.1
    assert curve.at(1.4).empty
    assert len(curve.at(curve.ratios[0])) == len(curve.at(2.0)) == SAMPLES


def test_settings_that_keep_alike_otherwise_are_curves_of_their_own_and_say_what_they_share(tmp_path: Path) -> None:
    records = judged()
    final = [never_revived(r) for r in records if r.method == "lazyllm"]
    fixed = [
        replace(r, params={**r.params, "spare_template": False}) if r.method == "random_drop" else r for r in records
    ]
    section = at(sections(results(tmp_path, [*fixed, *final])), 2.0)
    assert len(set(section.table()["method"])) == 3
    assert len({curve.name for curve in section.curves if curve.name[0] == "lazyllm"}) == 2
    shown = readable(section.table())
    beside = dict(zip(shown["method"], shown["fixed"], strict=True))
    assert beside["Random token drop"] == "spare_template=false"


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path, [replace(record, fidelity_kl=None) for record in judged(2)])
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "no record has a KL divergence" in first
    assert "no folder at or below holds" in second


def test_methods_at_equal_memory(tmp_path: Path) -> None:
    """Caches and Aux Cache count together: keep ratios of .5, .3, .2 and a tenth of the plain cache beside them."""
    assert "made-up at a memory ratio of 2x" in board(tmp_path, judged())
    found = load([tmp_path])
    table = measured_settings(found)
    assert sorted(set(table["memory"].round(6))) == [0.3, 0.4, 0.6]
    assert table["memory"].to_numpy() == pytest.approx((table["kv_ratio"] + table["aux_ratio"]).to_numpy())
    assert table["flops_ratio"].tolist() == pytest.approx(sorted([*KEEPS.values()] * 2))
    at_memory = {section.ratio: section for section in sections(found) if section.matched == MEMORY}
    assert set(at_memory) == {2.0}  # 1.25 and 1.5 lie above what was kept, 4 below
    for curve, samples in zip(at_memory[2.0].curves, at_memory[2.0].samples, strict=True):
        share = numpy.log(2 / (1 / 0.6)) / numpy.log((1 / 0.4) / (1 / 0.6))
        expected = curve.settings[0].samples["fidelity_kl"] * (1.6 / 1.25) ** (SLOPES[curve.name[0]] * share)
        pandas.testing.assert_series_equal(samples["fidelity_kl"], expected.loc[samples.index], rtol=1e-9)


def test_methods_that_say_nothing_of_their_caches_have_no_memory(tmp_path: Path) -> None:
    silent = [replace(record, kv_bytes_end=None, aux_bytes_end=None) for record in judged(4)]
    assert "memory %" not in board(tmp_path, silent)
