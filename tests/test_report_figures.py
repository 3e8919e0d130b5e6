"""What the figures say about a schedule: stages by their layers, pruning layers by their number, models by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
from synthetic_results import Params, made_up_records, pruned, write_results, write_run

from lazybench.methods import METHODS
from lazybench.pruning.schedule import PruningSchedule
from lazybench.report import artefacts
from lazybench.report.figures import fig2, fig6, fig7, style, tradeoff
from lazybench.report.frame import records_frame
from lazybench.report.results import load
from lazybench.report.summary import summarise as summarise_frame
from lazybench.run.record import Record

PAPER = json.dumps({})


def summarise(records: list[Record]) -> pandas.DataFrame:
    return summarise_frame(records_frame([records]))


def test_stages_of_a_model_of_32_layers_are_the_papers() -> None:
    """Figure 7 of the paper: 1-9, 10-19, 20-28, 29-32; layers count from 0 here."""
    assert fig7.stage_names(PAPER, 4, 32) == ["layers 0-8", "layers 9-18", "layers 19-27", "layers 28-31"]


@pytest.mark.parametrize("layers", range(4, 81, 7))
def test_stages_are_those_that_the_schedule_runs(layers: int) -> None:
    schedule = PruningSchedule.paper(layers)
    by_index = json.dumps(pruned(layers=list(schedule.layers or ()), keep=[0.7] * 3))
    stages = schedule.stages(layers)
    expected = [f"layers {stage.start}-{stage.stop - 1}" for stage in stages]
    assert fig7.stage_names(PAPER, len(stages), layers) == expected
    assert fig7.stage_names(by_index, len(stages), layers) == expected


def test_stages_are_numbered_where_the_depth_is_unknown() -> None:
    assert fig7.stage_names(PAPER, 4, None) == ["stage 0", "stage 1", "stage 2", "stage 3"]


def one_layer_summary(**pruning: object) -> pandas.DataFrame:
    return summarise(made_up_records(samples=1, methods=[("baseline", {}), ("lazyllm", pruned(**pruning))]))


@pytest.mark.parametrize("place", [{"depths": [0.3]}, {"layers": [8]}])
def test_a_pruning_layer_stands_where_the_schedule_prunes(place: dict[str, object]) -> None:
    rows = fig6.one_layer_rows(one_layer_summary(**place, keep=[0.5]), {"made-up": 32}, "score")
    assert rows["layer"].dropna().tolist() == [8]


def test_a_share_of_the_depth_stands_as_it_is_where_the_depth_is_unknown() -> None:
    rows = fig6.one_layer_rows(one_layer_summary(depths=[0.3], keep=[0.5]), {}, "score")
    assert rows["layer"].dropna().tolist() == [0.3]


def test_an_interval_without_an_upper_bound_runs_off_the_panel() -> None:
    # one hit in twelve: the baseline may as well score nothing on others
    scores = {("baseline", place): 0.6 * (place == 1) for place in range(12)}
    records = [
        replace(record, score=scores.get((record.method, int(record.sample_id.split("-")[1])), 0.06))
        for record in made_up_records(samples=12, methods=[("baseline", {}), ("random_drop", {"keep": 0.7})])
        if record.task == "qasper"
    ]
    (panel,) = (axes for axes in tradeoff.draw(summarise(records)).axes if axes.collections)
    tops = [path.vertices[:, 1].max() for bars in panel.collections for path in bars.get_paths() if len(path.vertices)]
    assert max(tops) > panel.get_ylim()[1] > 120  # the point itself stands at 120%


def test_figures_5_and_6_are_drawn_by_score_and_by_fidelity(tmp_path: Path) -> None:
    names = [name for name, _, _ in artefacts.build_figures(load([write_results(tmp_path)]), ("fig5", "fig6"))]
    assert sorted(names) == ["fig5", "fig5_fidelity", "fig6", "fig6_fidelity"]


def test_every_method_has_one_look_and_no_two_the_same() -> None:
    looks = {name: style.look(name) for name in METHODS}
    assert len(set(looks.values())) == len(looks)
    assert style.OF_OTHERS not in looks.values()
    assert style.look("a_method_of_ones_own") == style.OF_OTHERS


def test_figures_6_and_7_need_no_clock(tmp_path: Path) -> None:
    methods = [("baseline", {}), *(("lazyllm", pruned(depths=[depth], keep=[0.3])) for depth in (0.1, 0.5, 0.9))]
    untimed = [
        replace(record, ttft_s=None, decode_step_s=None, generation_s=None)
        for record in made_up_records(2, methods=methods)
    ]
    write_run(tmp_path / "run", untimed)
    names = [name for name, _, _ in artefacts.build_figures(load([tmp_path]), ("fig1", "fig5", "fig6", "fig7"))]
    assert names == ["fig6", "fig6_fidelity", "fig7"]


def test_the_attentions_layers_count_from_0() -> None:
    heat_map = fig2.draw(numpy.random.default_rng(0).random((4, 30)), "made-up").axes[0]
    assert heat_map.get_ylim() == (3.5, -0.5)


def test_the_legend_lies_inside_the_figure() -> None:
    methods: list[tuple[str, Params]] = [("baseline", {})]
    methods += [(f"a_method_of_a_long_name_{place}", {"keep": place / 10}) for place in range(1, 9)]
    methods += [("lazyllm", pruned(keep=[place / 10] * 3)) for place in range(1, 9)]
    like = [record for record in made_up_records(1, methods=[("baseline", {})]) if record.task == "qasper"]
    records = [
        replace(like[0], method=method, params=params, ttft_s=1 / (1 + place))
        for place, (method, params) in enumerate(methods)
    ]
    figure = tradeoff.draw(summarise(records))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, (width, height) = legend.get_window_extent(), figure.get_size_inches() * figure.dpi
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)
    assert len(legend.get_texts()) == len(methods)  # of one sample each: no bars, and none in the legend
    assert height > 4


def test_the_baseline_is_named_at_its_point_and_the_bars_are_explained() -> None:
    records = [record for record in made_up_records(12) if record.task == "qasper"]
    figure = tradeoff.draw(summarise(records))
    (axes,) = figure.axes
    assert [text.xy for text in axes.texts if text.get_text() == "baseline"] == [(1, 100)]
    assert "bars: 95% interval" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_an_attention_map_is_named_for_the_model_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "attention.npz"
    scores = numpy.full((2, 3), 0.5, dtype=numpy.float32)
    numpy.savez_compressed(path, scores=scores, model="llama2, random weights, 2 layers", task="qasper")
    assert fig2.read_attention(path)[1] == "llama2, random weights, 2 layers, qasper"
    numpy.savez_compressed(path, scores=scores)
    assert fig2.read_attention(path)[1] == tmp_path.name
