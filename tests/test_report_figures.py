"""What the figures say about a schedule: stages by their layers, pruning layers by their number, models by name."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from front import front
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from synthetic_results import FIGURE6, METHODS, made_up_records, pruned, results_of, write_run

from lazybench.errors import UserError
from lazybench.methods import METHODS as KNOWN
from lazybench.methods import Method
from lazybench.pruning.schedule import PruningSchedule
from lazybench.report.figures import prefill, schedules, style, tradeoff
from lazybench.report.page import build_figures
from lazybench.report.results import load
from lazybench.report.statistics import Estimate

PAPER = json.dumps({})


@pytest.mark.parametrize("layers", range(4, 81, 7))
def test_stages_are_those_that_the_schedule_runs(layers: int) -> None:
    schedule = PruningSchedule.paper(layers)
    by_index = json.dumps(pruned(layers=list(schedule.layers or ()), keep=[0.7] * 3))
    stages = schedule.stages(layers)
    expected = [f"layers {stage.start}-{stage.stop - 1}" for stage in stages]
    assert schedules.stage_names(PAPER, len(stages), layers) == expected
    assert schedules.stage_names(by_index, len(stages), layers) == expected
    assert schedules.stage_names(PAPER, len(stages), None) == [f"stage {stage}" for stage in range(len(stages))]


@pytest.mark.parametrize(
    ("place", "depth", "layer"),
    [
        ({"depths": [0.3]}, {"made-up": 32}, 8),
        ({"layers": [8]}, {"made-up": 32}, 8),
        ({"depths": [0.3]}, {}, 0.3),
    ],
)
def test_a_pruning_layer_stands_where_the_schedule_prunes(
    place: dict[str, object], depth: dict[str, int], layer: float
) -> None:
    methods = [("baseline", {}), ("lazyllm", pruned(**place, keep=[0.5]))]
    rows = schedules.one_layer_rows(results_of(made_up_records(samples=1, methods=methods)).summary, depth, "score")
    assert rows["layer"].dropna().tolist() == [layer]


def test_an_interval_without_an_upper_bound_runs_off_the_panel() -> None:
    # one hit in twelve: the baseline may as well score nothing on others
    scores = {("baseline", place): 0.6 * (place == 1) for place in range(12)}
    records = [
        replace(record, score=scores.get((record.method, int(record.sample_id.split("-")[1])), 0.06))
        for record in made_up_records(samples=12, methods=[("baseline", {}), ("random_drop", {"keep": 0.7})])
        if record.task == "qasper"
    ]
    (panel,) = (axes for axes in tradeoff.figure5(results_of(records)).axes if axes.collections)
    tops = [path.vertices[:, 1].max() for bars in panel.collections for path in bars.get_paths() if len(path.vertices)]
    assert max(tops) > panel.get_ylim()[1] > 120  # the point itself stands at 120%


TIMES = {"ttft_s": None, "decode_step_s": None, "generation_s": None}


@pytest.mark.parametrize(
    ("lacking", "names", "label"),
    [
        ({}, ["fig1", "fig5", "fig6", "fig7"], "score"),
        ({"score": None}, ["fig1", "fig5", "fig6", "fig7"], "same token as baseline (%)"),
        (TIMES, ["fig6", "fig7"], "score"),
    ],
)
def test_what_is_drawn_without_a_score_and_without_a_clock(
    lacking: dict[str, Any], names: list[str], label: str, tmp_path: Path
) -> None:
    records = [replace(record, **lacking) for record in made_up_records(2, methods=[*METHODS, *FIGURE6])]
    write_run(tmp_path / "run", records)
    figures = build_figures(load([tmp_path]), ("fig1", "fig5", "fig6", "fig7"))
    drawn = {name: figure for name, _, figure in figures}
    assert list(drawn) == names
    assert all(drawn[name].axes[0].get_ylabel().startswith(label) for name in {"fig5", "fig6"} & set(names))


def test_every_method_has_one_look_and_no_two_the_same() -> None:
    looks = {name: style.look(name) for name in KNOWN}
    assert len(set(looks.values())) == len(looks)
    assert Method.drawn_as not in looks.values()
    assert style.look("a_method_of_ones_own") == Method.drawn_as


@pytest.mark.parametrize(
    "pruning", ["all", {"keep": [[]]}, {"layers": ["x"], "keep": [0.5]}, {"depths": [9], "keep": [1]}]
)
def test_settings_that_no_version_reads_are_left_out(pruning: object, tmp_path: Path) -> None:
    records = made_up_records(1, methods=[("baseline", {}), ("lazyllm", pruned(depths=[0.5], keep=[0.3]))])
    odd = [
        replace(r, params={"pruning": pruning}, prompt_tokens_computed_by_step=((1.0,), (1.0, 0.5))) for r in records
    ]
    write_run(tmp_path / "odd", [record for record in odd if record.method != "baseline"])
    write_run(tmp_path / "run", records)
    results = load([tmp_path])
    rows = schedules.one_layer_rows(results.summary, {}, "score")
    assert rows["layer"].dropna().tolist() == [0.5]
    assert [name for name, _, _ in build_figures(results, ("fig6", "fig7"))] == ["fig6", "fig7"]


def named(axes: Axes) -> dict[str, str]:
    """What stands beside a panel, and its colours."""
    legend = axes.get_legend()
    assert legend is not None
    return {" ".join(text.get_text().split()): text.get_color() for text in legend.get_texts()}


SETTINGS = pandas.DataFrame(
    [
        {"model": model, "method_name": "lazyllm", "family": f"depths={depth}", "flops_ratio": ratio, "kl": kl, "n": 5}
        for depth, (model, kl) in enumerate([("a " * 50, 0.231), ("a " * 50, 0.242), ("b", math.nan), ("c", 0.3)])
        for ratio in (1.5, 2.5)
    ]
).assign(kl_low=math.nan, kl_high=math.nan, ttft_speedup=math.nan)


def test_panels_have_data_an_axis_of_their_own_measure_and_titles_of_their_width() -> None:
    wide, other = tradeoff.settings_figure(SETTINGS).axes  # none of b
    assert [axes.get_xlabel() for axes in (wide, other)] == ["FLOPs ratio (x)"] * 2  # no clock
    assert max(map(len, wide.get_title().splitlines())) <= tradeoff.TITLE_WIDTH
    assert (list(named(wide)), len(wide.containers)) == (["LazyLLM"], 2)  # a line for each curve
    assert wide.get_ylim()[1] / wide.get_ylim()[0] >= 2
    timed = SETTINGS.assign(ttft_speedup=2.0)
    assert tradeoff.settings_figure(timed).axes[0].get_xlabel() == "TTFT speedup (x)"


def test_a_front_draws_a_model_of_one_ratio_at_that_ratio_and_says_what_is_grey() -> None:
    curved = pandas.concat([SETTINGS.iloc[:4], SETTINGS.iloc[:2].assign(method_name="asl")])  # two schedules of LazyLLM
    found = {("taper", ""): Estimate(0.1, 0.05, 0.2), ("lazyllm", "depths=1"): Estimate(0.3)}
    curves, alone = front([("a", curved, found), ("b", SETTINGS.iloc[:1], found)], 2.0).axes
    assert list(named(curves)) == ["LazyLLM (depths=1)", "LazyLLM (depths=0)", "grey: other methods"]
    assert alone.get_title() == "b\nat a FLOPs ratio of 2 (n=5)"
    assert [text.get_text() for text in alone.get_yticklabels()] == ["Taper", "LazyLLM"]
    both = front([("a", curved, found), ("b", SETTINGS.iloc[:2], found)], 2.0).axes  # the schedule that one panel lacks
    assert [list(named(axes)) for axes in both] == [["LazyLLM", "grey: other methods"], ["LazyLLM"]]


def test_a_panel_names_its_lines_and_says_how_many_samples() -> None:
    rows = pandas.concat(
        [SETTINGS.iloc[6:].assign(method_name=name, n=[1, 2]) for name in ("taper", "lazyllm", "mine")]
    )
    bounds = {"kl_low": 0.1, "kl_high": 0.5, "ttft_speedup_low": 1.0, "ttft_speedup_high": 3.0}
    (axes,) = tradeoff.settings_figure(rows.assign(ttft_speedup=rows["flops_ratio"], **bounds)).axes
    assert named(axes) == {"Taper": "#0072B2", "LazyLLM": "#D55E00", "mine": Method.drawn_as[0]}
    assert axes.get_yscale() == "log"
    assert "n=1 to 2; bars: 95% interval" in " ".join(axes.get_title().split())


def test_the_attentions_layers_count_from_0() -> None:
    axes = Figure().subplots()
    prefill.heat_map(axes, numpy.random.default_rng(0).random((4, 30)), "made-up")
    assert axes.get_ylim() == (3.5, -0.5)


def test_figure_5_names_what_it_draws_beside_its_panels() -> None:
    for samples in (12, 2):
        records = [record for record in made_up_records(samples) if record.task == "qasper"]
        figure = tradeoff.figure5(results_of(records))
        (axes,) = figure.axes
        assert {"Baseline", "LazyLLM", "Random token drop"} <= set(named(axes))
        assert f"(n={samples})" in axes.get_title()


def test_an_attention_map_is_named_for_the_model_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "attention.npz"
    scores = numpy.full((2, 3), 0.5, dtype=numpy.float32)
    numpy.savez_compressed(path, scores=scores, model="llama2, random weights, 2 layers", task="qasper")
    assert prefill.read_attention(path)[1] == "llama2, random weights, 2 layers, qasper"
    numpy.savez_compressed(path, scores=scores)
    assert prefill.read_attention(path)[1] == tmp_path.name


@pytest.mark.parametrize(
    "scores", [numpy.ones(3), numpy.zeros((2, 3)), numpy.full((2, 3), math.nan), numpy.ones((2, 0))]
)
def test_numbers_that_are_no_attention_are_one_line(tmp_path: Path, scores: numpy.ndarray) -> None:
    numpy.savez_compressed(tmp_path / "attention.npz", scores=scores)
    with pytest.raises(UserError, match=r"holds no attention scores: .* experiment=fig2 measures them again"):
        prefill.figure2(load([tmp_path]))


def test_figure_5_marks_the_papers_points_in_their_own_panel() -> None:
    """A category without a score has no panel."""
    records = [
        replace(record, score=None if record.task == "qasper" else record.score)
        for record in made_up_records(2)
        if record.task in ("qasper", "hotpotqa")
    ]
    (axes,) = tradeoff.figure5(results_of(records)).axes
    assert axes.get_title().startswith("Multi-document QA")
    assert [text.get_text() for text in axes.texts] == ["paper", "paper"]
