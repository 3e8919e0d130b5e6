"""The leaderboard on made-up records: matched between two settings, never beyond them; pairs on the same samples."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
from synthetic_results import write_run

from lazybench.report import memory
from lazybench.report.curves import between
from lazybench.report.leaderboard import FLOPS, TTFT, Section, matrix, readable, sections
from lazybench.report.leaderboard_command import main
from lazybench.report.results import Results, load
from lazybench.run.record import Record

SAMPLES = 24
SLOPES = {"lazyllm": 1.0, "gemfilter": 1.5}  # of log KL over log ratio
KEEPS = {0.5: 1.25, 0.3: 1.6, 0.2: 2.5}  # keep ratio to FLOPs ratio
BLANK = Record("made-up", "qasper", "single_doc", "baseline", "", "0", 0, 1000, output_tokens=4)


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
                records.append(
                    replace(
                        sample,
                        method=method,
                        variant=f"keep={keep} depth=0.4",
                        flops_ratio=ratio,
                        kv_bytes_end=int(1000 * keep),
                        aux_bytes_end=100,
                        fidelity_kl=kl,
                        fidelity_first_kl=kl,
                        fidelity_top1=1 - keep / 2,
                        score=0.4,
                    )
                )
    return records


def timed() -> list[Record]:
    """Four other prompts, with a clock and without fidelity: twice the FLOPs ratio's logarithm."""
    return [
        replace(
            record,
            task="plain_text_2000",
            ttft_s=4.0 / float(record.flops_ratio or 1) ** 2,
            decode_step_s=0.1 if record.method == "baseline" else 0.2,
            generation_s=9.0,
            score=None,
            fidelity_kl=None,
            fidelity_first_kl=None,
            fidelity_top1=None,
        )
        for record in judged(4)
    ]


def results(tmp_path: Path, *runs: list[Record]) -> Results:
    for number, records in enumerate(runs):
        write_run(tmp_path / f"run{number}", records, timing=number == 1)
    return load([tmp_path])


def at(found: list[Section], speed: float, matched: str = FLOPS) -> Section:
    (section,) = (one for one in found if (one.speed, one.matched) == (speed, matched))
    return section


def test_between_two_settings_a_power_law_is_met_exactly(tmp_path: Path) -> None:
    section = at(sections(results(tmp_path, judged())), 2.0)
    for curve, samples in zip(section.curves, section.samples, strict=True):
        lower = curve.settings[0]["fidelity_kl"]
        expected = lower * (2.0 / 1.25) ** SLOPES[curve.method]
        pandas.testing.assert_series_equal(samples["fidelity_kl"], expected.loc[samples.index], rtol=1e-9)
    table = section.table().set_index("method")
    share = numpy.log(2 / 1.6) / numpy.log(2.5 / 1.6)
    row = table.loc["LazyLLM"]
    assert row["kv_ratio"] == pytest.approx((1 - share) * 0.3 + share * 0.2)
    assert row["aux_ratio"] == pytest.approx(0.1)
    assert row["relative_score"] == pytest.approx(0.5)
    assert row["kl_later"] == pytest.approx(row["kl_first"]) == row["kl"]
    assert (row["n"], row["bounds"]) == (SAMPLES, "95% interval")
    assert "ttft_speedup" not in table


def test_nothing_is_extrapolated_and_that_is_said(tmp_path: Path) -> None:
    results(tmp_path, judged())
    assert main([str(tmp_path), "--out", str(tmp_path / "board")]) == 0
    table = pandas.read_csv(tmp_path / "board" / "leaderboard.csv")
    beyond = table[table["speed"] == 3.0]
    assert beyond["n"].eq(0).all()
    assert beyond[["kl", "same_token", "relative_score", "kv_ratio", "aux_ratio"]].isna().all(axis=None)
    text = (tmp_path / "board" / "leaderboard.md").read_text(encoding="utf-8")
    assert "at a FLOPs ratio of 3x there is no number, nothing being extrapolated, for" in text
    assert "LazyLLM (1.25x to 2.50x)" in text
    assert {"leaderboard.html", "comparisons.csv", "front.png"} <= {f.name for f in (tmp_path / "board").iterdir()}


def test_the_neighbours_of_a_speed() -> None:
    assert between((1.0, 2.0, 8.0), 4.0) == (1, 2, pytest.approx(0.5))
    assert between((1.0, 2.0, 8.0), 2.0) == (1, 1, 0.0)
    assert between((1.2, 2.0), 1.1) is between((1.2, 2.0), 2.1) is between((), 2.0) is None


def test_pairs_are_of_the_same_samples_and_each_order_says_the_same(tmp_path: Path) -> None:
    lost = [r for r in judged(jumpy=tuple(SLOPES)) if not (r.method == "gemfilter" and r.sample_id in ("0", "1"))]
    section = at(sections(results(tmp_path, lost)), 2.0)
    pairs = section.comparisons().set_index(["method", "against"])
    one, other = pairs.loc[("LazyLLM", "GemFilter")], pairs.loc[("GemFilter", "LazyLLM")]
    assert (one["n"], one["result"], other["result"]) == (SAMPLES - 2, "closer", "further")
    assert one["kl_ratio"] * other["kl_ratio"] == pytest.approx(1)
    assert one["kl_ratio_low"] * other["kl_ratio_high"] == pytest.approx(1)
    assert one["kl_ratio_low"] < 2**-0.5 < one["kl_ratio_high"]  # samples differ tenfold: only pairs can tell
    table = section.table().set_index("method")
    assert table.loc["LazyLLM", "kl_high"] > table.loc["GemFilter", "kl_low"]
    cells = matrix(section.comparisons()).set_index("method")
    assert cells.loc["LazyLLM", "GemFilter"].endswith(" ++")
    assert cells.loc["GemFilter", "LazyLLM"].endswith(" --")
    assert cells.loc["LazyLLM", "LazyLLM"] == ""


def test_a_latency_run_of_the_same_settings_gives_speedups_and_matches_by_them(tmp_path: Path) -> None:
    found = sections(results(tmp_path, judged(), timed()))
    assert {section.model for section in found} == {"made-up"}
    by_flops = at(found, 2.0).table().set_index("method").loc["LazyLLM"]
    assert 1.6**2 < by_flops["ttft_speedup"] < 2.5**2
    assert by_flops["decode_step"] == pytest.approx(2.0)
    by_time = at(found, 2.0, TTFT)
    curve = by_time.curves[0]
    assert curve.speeds == pytest.approx([ratio**2 for ratio in KEEPS.values()])
    expected = curve.settings[0]["fidelity_kl"] * (2**0.5 / 1.25) ** SLOPES[curve.method]
    pandas.testing.assert_series_equal(curve.at(2.0)["fidelity_kl"], expected, rtol=1e-9)
    beyond = curve.at(100.0)["fidelity_kl"].align(expected, join="inner")[0]  # no sample in common, and no error
    assert beyond.empty


def test_times_of_prompts_on_which_a_setting_saves_more_are_not_its_own(tmp_path: Path) -> None:
    longer = [replace(r, flops_ratio=(r.flops_ratio or 1) * (1.04 if r.method == "lazyllm" else 1.01)) for r in timed()]
    found = sections(results(tmp_path, judged(), longer))
    by_flops = at(found, 2.0).table().set_index("method")
    assert numpy.isnan(by_flops.loc["LazyLLM", "ttft_speedup"])
    assert by_flops.loc["GemFilter", "ttft_speedup"] > 2
    assert [curve.method for curve in at(found, 2.0, TTFT).curves] == ["gemfilter"]


def test_a_speed_is_of_all_samples_work_together(tmp_path: Path) -> None:
    """Half of the prompts left whole, at no loss: neither the median ratio nor a divergence of next to nothing."""
    spared = [
        replace(r, flops_ratio=1.0, fidelity_kl=1e-12) if r.method == "lazyllm" and int(r.sample_id) % 4 < 2 else r
        for r in judged()
    ]
    curve = at(sections(results(tmp_path, spared)), 2.0).curves[0]
    assert curve.speeds == pytest.approx([2 / (1 + 1 / ratio) for ratio in KEEPS.values()])
    whole = curve.at(curve.speeds[0])["fidelity_kl"]
    assert whole.min() == pytest.approx(1e-4)


def test_between_a_setting_that_leaves_most_prompts_whole_and_another_is_nothing(tmp_path: Path) -> None:
    rare = [
        replace(r, flops_ratio=1.0) if "keep=0.5" in r.variant and int(r.sample_id) % 3 and r.method == "lazyllm" else r
        for r in judged()
    ]
    curve = at(sections(results(tmp_path, rare)), 2.0).curves[0]
    assert curve.speeds[0] < 1.1
    assert curve.at(1.4).empty
    times = {(curve.method, variant): 2.0 for variant in curve.variants}
    assert numpy.isnan(curve.timed_at(1.4, times))
    assert curve.timed_at(2.0, times) == pytest.approx(2.0)
    assert len(curve.at(curve.speeds[0])) == len(curve.at(2.0)) == SAMPLES


def test_times_of_other_machines_are_no_times_of_one_speed(tmp_path: Path) -> None:
    write_run(tmp_path / "judged", judged())
    quick = [replace(record, ttft_s=None if record.ttft_s is None else record.ttft_s**0.5) for record in timed()]
    write_run(tmp_path / "cpu", timed(), {"hardware": {"cpu": "slow"}}, experiment="latency")
    write_run(tmp_path / "gpu", quick, {"hardware": {"cpu": "fast"}}, experiment="latency")
    found = sections(load([tmp_path]))
    by_time = {section.timed: section.curves[0].speeds for section in found if section.matched == TTFT}
    assert by_time["cpu=slow"] == pytest.approx([ratio**2 for ratio in KEEPS.values()])
    assert by_time["cpu=fast"] == pytest.approx(list(KEEPS.values()))
    assert "decode_step" not in at(found, 2.0).table()  # neither machine's: the title names none
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "at a TTFT speedup of 2x, timed with cpu=slow" in text
    assert (tmp_path / "out" / "front_ttft_cpu_slow.png").exists()
    joined = sections(load([tmp_path], joined=["hardware"]))  # quality stands together where asked for, clocks never do
    assert {section.timed for section in joined} == {section.timed for section in found}


def test_at_a_ttft_speedup_the_table_shows_that_speedup(tmp_path: Path) -> None:
    found = sections(results(tmp_path, judged(), timed()), (2.0, 3.0))
    for speed in (2.0, 3.0):
        shown = at(found, speed, TTFT).table()["ttft_speedup"]
        assert shown.tolist() == pytest.approx([speed] * len(shown))


def test_what_a_rows_settings_have_in_common_stands_beside_its_name(tmp_path: Path) -> None:
    shown = readable(at(sections(results(tmp_path, judged())), 2.0).table())
    beside = dict(zip(shown["method"], shown["fixed"], strict=True))
    assert beside == {"LazyLLM": "depth=0.4", "GemFilter": ""}  # whose settings in experiment=quality vary the depth


def test_scores_are_compared_in_pairs_where_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better = [replace(r, score=0.5 + int(r.sample_id) / 100) if r.method == "gemfilter" else r for r in judged()]
    results(tmp_path, better)
    assert main([str(tmp_path), "--speeds", "2", "--between", "gemfilter", "lazyllm"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "FLOPs ratio of 2x: the score" in line]
    assert len(lines) == 1
    assert "the score of GemFilter less that of LazyLLM is 21.5 [18.5, 24.5] points of 100, n=24" in lines[0]
    results(tmp_path / "unscored", [replace(record, score=None) for record in judged()])
    assert main([str(tmp_path / "unscored"), "--between", "gemfilter", "lazyllm"]) == 0
    assert "score" not in capsys.readouterr().out


def test_variants_that_keep_alike_otherwise_are_curves_of_their_own(tmp_path: Path) -> None:
    records = judged()
    final = [replace(r, variant=f"{r.variant} never revived") for r in records if r.method == "lazyllm"]
    names = at(sections(results(tmp_path, [*records, *final])), 2.0).names
    assert len(names) == 3
    assert sum("never revived" in name for name in names) == 1


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path, [replace(record, fidelity_kl=None) for record in judged(2)])
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path), "--between", "lazyllm", "gemfilter"]) == 2
    first, _, last = capsys.readouterr().err.splitlines()
    assert first == last  # no record was compared with the plain model: so of the leaderboard, so of two methods


def board(tmp_path: Path, *runs: list[Record]) -> Path:
    """The folder of a leaderboard on these runs."""
    results(tmp_path, *runs)
    assert main([str(tmp_path), "--out", str(tmp_path / "board")]) == 0
    return tmp_path / "board"


def test_two_methods_by_name_are_one_line_for_each_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path, judged(jumpy=tuple(SLOPES)))
    assert main([str(tmp_path), "--speeds", "2", "--between", "lazyllm", "gemfilter"]) == 0
    line, *others = capsys.readouterr().out.splitlines()
    assert line.startswith("made-up at a FLOPs ratio of 2x: KL of LazyLLM is 0.7")
    assert f"times that of GemFilter, n={SAMPLES}: closer to the plain model (sign test p=" in line
    assert "would decide" not in line
    assert "the score of LazyLLM less that of GemFilter is 0.0" in others[0]
    assert all("memory ratio" in other for other in others[1:])
    assert main([str(tmp_path), "--speeds", "2", "--between", "gemfilter", "lazyllm"]) == 0
    assert "GemFilter is 1.39 [1.33, 1.46]" in (out := capsys.readouterr().out)
    assert "further" in out
    assert not (tmp_path / "leaderboard").exists()


def test_what_would_decide_it_is_said_where_it_is_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path, judged(6, jumpy=tuple(SLOPES)))  # six samples have no interval
    assert main([str(tmp_path), "--speeds", "2", "--between", "lazyllm", "gemfilter"]) == 0
    assert "undecided (sign test p=0.031; about 10 samples would decide it)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "speed", "said"),
    [
        (("lazyllm", "gemfiltre"), "2", "gemfilter"),
        (("lazyllm", "lazyllm"), "2", "twice"),
        (("lazyllm", "gemfilter"), "9", "lazyllm 1.25x to 2.50x"),
    ],
)
def test_a_pair_that_cannot_be_compared_is_one_line(
    names: tuple[str, str], speed: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results(tmp_path, judged(4))
    assert main([str(tmp_path), "--speeds", speed, "--between", *names]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_methods_at_equal_memory(tmp_path: Path) -> None:
    """Caches and Aux Cache count together: keep ratios of .5, .3, .2 and a tenth of the plain cache beside them."""
    where = board(tmp_path, judged())
    table = pandas.read_csv(where / "memory.csv")
    assert sorted(set(table["memory"].round(6))) == [0.3, 0.4, 0.6]
    assert table["memory"].to_numpy() == pytest.approx((table["kv_ratio"] + table["aux_ratio"]).to_numpy())
    found = {section.speed: section for section in memory.sections(load([tmp_path]))}
    assert set(found) == {2.0}  # 1.25 and 1.5 lie above what was kept, 4 below
    for curve, samples in zip(found[2.0].curves, found[2.0].samples, strict=True):
        share = numpy.log(2 / (1 / 0.6)) / numpy.log((1 / 0.4) / (1 / 0.6))
        expected = curve.settings[0]["fidelity_kl"] * (1.6 / 1.25) ** (SLOPES[curve.method] * share)
        pandas.testing.assert_series_equal(samples["fidelity_kl"], expected.loc[samples.index], rtol=1e-9)
    text = (where / "memory.md").read_text(encoding="utf-8")
    assert "made-up at a memory ratio of 2x" in text
    assert "front_memory.png" in {file.name for file in where.iterdir()}


def test_methods_that_say_nothing_of_their_caches_have_no_memory(tmp_path: Path) -> None:
    silent = [replace(record, kv_bytes_end=None, aux_bytes_end=None) for record in judged(4)]
    assert "memory.md" not in {file.name for file in board(tmp_path, silent).iterdir()}


NODE = shutil.which("node")
# as much of a browser's table as the script asks for
STAND_IN = """
const cell = (text) => ({ textContent: text });
const body = { rows: ROWS.map((cells) => ({ cells: cells.map(cell) })), append(...rows) { this.rows = rows; } };
const heads = ROWS[0].map(() => ({
  attributes: {}, handlers: {}, parentNode: null, closest: () => ({ tBodies: [body] }),
  addEventListener(name, handler) { this.handlers[name] = handler; },
  getAttribute(name) { return this.attributes[name]; }, removeAttribute(name) { delete this.attributes[name]; },
  setAttribute(name, value) { this.attributes[name] = value; },
}));
for (const head of heads) head.parentNode = { children: heads };
const document = { querySelectorAll: () => heads };
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (board(tmp_path_factory.mktemp("page"), judged()) / "leaderboard.html").read_text(encoding="utf-8")


@pytest.mark.skipif(NODE is None, reason="runs the page's script with node")
@pytest.mark.parametrize(
    ("column", "clicks", "order"), [(0, 1, "abcd"), (0, 2, "dcba"), (1, 1, "cbad"), (1, 2, "abcd")]
)
def test_a_pages_table_sorts_by_numbers_and_words(page: str, column: int, clicks: int, order: str) -> None:
    script = page.rpartition("<script>")[2].partition("</script>")[0].replace('"use strict";', "")
    rows = [["b", "2.5 [1, 9]"], ["d", ""], ["a", "10"], ["c", "0.3"]]
    show = "console.log(body.rows.map((row) => row.cells[0].textContent).join(''));"
    program = f"const ROWS = {json.dumps(rows)};{STAND_IN}{script}{f'heads[{column}].handlers.click();' * clicks}{show}"
    done = subprocess.run([str(NODE), "-e", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == order


@pytest.mark.skipif(NODE is None, reason="runs the page's script with node")
def test_a_search_leaves_the_rows_that_hold_every_word(page: str) -> None:
    assert 'id="search"' in page
    script = page.split("<script>")[1].partition("</script>")[0]
    program = """
const rows = ["LazyLLM, 0.3", "LazyLLM never revived", "gemfilter"].map((name) => ({ cells: [{ textContent: name }] }));
const box = { addEventListener(name, handler) { this[name] = handler; } };
const document = { getElementById: () => box, querySelectorAll: () => rows };
"""
    shown = "console.log(rows.map((row) => (row.hidden ? '-' : '+')).join(''));"
    for typed, expected in (("lazy NEVER", "-+-"), ("", "+++"), ("gem", "--+")):
        act = f"box.input({{ target: {{ value: {json.dumps(typed)} }} }});{shown}"
        code = [str(NODE), "-e", program + script.replace('"use strict";', "") + act]
        done = subprocess.run(code, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == expected


def test_two_curves_of_one_method_are_told_apart_by_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = judged(jumpy=tuple(SLOPES))
    final = [
        replace(r, variant=f"{r.variant} never revived", fidelity_kl=2 * float(r.fidelity_kl or 0))
        for r in records
        if r.method == "lazyllm"
    ]
    results(tmp_path, [*records, *final])
    assert main([str(tmp_path), "--speeds", "2", "--between", "lazyllm", "lazyllm:never revived"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "LazyLLM, depth=0.4 is 0.50 [" in line
    assert "times that of LazyLLM, depth=0.4 never revived, n=24: closer" in line
    assert main([str(tmp_path), "--speeds", "2", "--between", "lazyllm:never revived", "lazyllm"]) == 0
    assert "never revived is 2.00 [" in capsys.readouterr().out


def test_two_settings_of_one_prefill_meet_at_their_own_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [r for r in judged(jumpy=tuple(SLOPES)) if r.method == "baseline" or r.variant.startswith("keep=0.3")]
    final = [replace(r, variant=f"{r.variant} never revived") for r in records if r.method == "lazyllm"]
    results(tmp_path, [*records, *final])
    assert main([str(tmp_path), "--between", "lazyllm:never revived", "lazyllm"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("made-up at a FLOPs ratio of 1.6x: KL of LazyLLM, depth=0.4 never revived is 1.00 ")
    assert main([str(tmp_path), "--out", str(tmp_path / "board")]) == 0
    settings = pandas.read_csv(tmp_path / "board" / "memory.csv")  # every setting, whatever ratios they enclose
    assert list(settings["n"]) == [SAMPLES] * 3
    assert "every setting by its memory" in (tmp_path / "board" / "leaderboard.html").read_text(encoding="utf-8")
