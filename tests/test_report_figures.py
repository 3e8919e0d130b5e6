"""What the figures say about a schedule: stages by their layers, pruning layers by their number, models by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pandas
import pytest
from synthetic_results import made_up_records, write_results, write_run

from lazybench.pruning.schedule import PruningSchedule
from lazybench.report import artefacts
from lazybench.report.figures import fig2, fig5, fig6, fig7, style
from lazybench.report.figures.tradeoff import tradeoff
from lazybench.report.results import load
from lazybench.report.summary import summarise
from lazybench.run.record import Record

PAPER = "depths=0.3,0.6,0.9 keep=0.7,0.7,0.7"


def test_stages_of_a_model_of_32_layers_are_the_papers() -> None:
    """Figure 7 of the paper: 1-9, 10-19, 20-28, 29-32."""
    assert fig7.stage_names(PAPER, 4, 32) == ["layers 1-9", "layers 10-19", "layers 20-28", "layers 29-32"]


@pytest.mark.parametrize("layers", range(4, 81))
def test_stages_are_those_that_the_schedule_runs(layers: int) -> None:
    schedule = PruningSchedule.paper(layers)
    by_index = f"layers={','.join(map(str, schedule.layers))} keep=0.7,0.7,0.7"
    stages = schedule.stages(layers)
    expected = [f"layers {stage.start + 1}-{stage.stop}" for stage in stages]
    assert fig7.stage_names(PAPER, len(stages), layers) == expected
    assert fig7.stage_names(by_index, len(stages), layers) == expected


def test_stages_are_numbered_where_the_depth_is_unknown() -> None:
    assert fig7.stage_names(PAPER, 4, None) == ["stage 1", "stage 2", "stage 3", "stage 4"]
    assert fig7.stage_names("linear 0.3..0.9 keep=0.75..0.25", 2, 32) == ["stage 1", "stage 2"]


def one_layer_summary(variant: str) -> pandas.DataFrame:
    return summarise(made_up_records(samples=1, methods=[("baseline", ""), ("lazyllm", variant)]))


@pytest.mark.parametrize(("variant", "run"), [("depths=0.3 keep=0.5", 9), ("layers=8 keep=0.5", 9)])
def test_a_pruning_layer_stands_where_the_schedule_prunes(variant: str, run: int) -> None:
    rows = fig6.one_layer_rows(one_layer_summary(variant), {"made-up": 32})
    assert rows["depth"].dropna().tolist() == [run / 32]


def test_a_share_of_the_depth_stands_as_it_is_where_the_depth_is_unknown() -> None:
    rows = fig6.one_layer_rows(one_layer_summary("depths=0.3 keep=0.5"), {})
    assert rows["depth"].dropna().tolist() == [0.3]


def test_an_interval_without_an_upper_bound_runs_off_the_panel() -> None:
    # one hit in twelve: the baseline may as well score nothing on others
    scores = {("baseline", place): 0.6 * (place == 1) for place in range(12)}
    records = [
        replace(record, score=scores.get((record.method, int(record.sample_id.split("-")[1])), 0.06))
        for record in made_up_records(samples=12, methods=[("baseline", ""), ("random_drop", "keep=0.7")])
        if record.task == "qasper"
    ]
    (panel,) = (axes for axes in fig5.draw(summarise(records), "made-up").axes if axes.collections)
    tops = [path.vertices[:, 1].max() for bars in panel.collections for path in bars.get_paths() if len(path.vertices)]
    assert max(tops) > panel.get_ylim()[1] > 120  # the point itself stands at 120%


def test_figures_5_and_6_are_drawn_by_score_and_by_fidelity(tmp_path: Path) -> None:
    names = [name for name, _, _ in artefacts.build_figures(load([write_results(tmp_path)]), ("fig5", "fig6"))]
    assert sorted(names) == ["fig5", "fig5_fidelity", "fig6", "fig6_fidelity"]


def test_every_method_of_any_name_has_a_look_of_its_own() -> None:
    names = [*style.METHODS, *(f"method_{place}" for place in range(60))]
    styles = style.method_styles(names)
    assert len({styles[name] for name in names}) == len(names)
    assert style.method_styles(reversed(names)) == styles  # whatever the order of the rows
    assert styles["lazyllm"] == style.METHODS["lazyllm"]


def test_the_legend_lies_inside_the_figure() -> None:
    methods = [("baseline", ""), *((f"a_method_of_a_long_name_{place}", f"keep=0.{place}") for place in range(1, 9))]
    methods += [("lazyllm", f"depths=0.3,0.6,0.9 keep=0.{place},0.{place},0.{place}") for place in range(1, 9)]
    like = [record for record in made_up_records(1, methods=[("baseline", "")]) if record.task == "qasper"]
    records = [
        replace(like[0], method=method, variant=variant, ttft_s=1 / (1 + place))
        for place, (method, variant) in enumerate(methods)
    ]
    figure = tradeoff(summarise(records))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, (width, height) = legend.get_window_extent(), figure.get_size_inches() * figure.dpi
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)
    assert [text.get_text() for text in legend.get_texts()[-2:]] == ["Pareto front", "bars: lowest to highest"]
    assert len(legend.get_texts()) == len(methods) + 2
    assert height > 4


def test_the_baseline_is_named_at_its_point_and_the_bars_are_explained() -> None:
    records = [record for record in made_up_records(12) if record.task == "qasper"]
    figure = tradeoff(summarise(records))
    (axes,) = figure.axes
    assert [text.xy for text in axes.texts if text.get_text() == "baseline"] == [(1, 100)]
    assert "bars: 95% interval" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_an_attention_map_is_named_for_the_model_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "attention.npz"
    scores = numpy.full((2, 3), 0.5, dtype=numpy.float32)
    numpy.savez_compressed(path, scores=scores, model="llama2, random weights, 2 layers", task="qasper")
    assert fig2.title_of(path) == "llama2, random weights, 2 layers, qasper"
    numpy.savez_compressed(path, scores=scores)
    assert fig2.title_of(path) == tmp_path.name


def needles(lengths: tuple[int, ...], depths: tuple[float, ...] = (0.0, 0.19, 0.2, 1.0)) -> list[Record]:
    """A method that finds the needle in the first fifth alone; the plain model finds it everywhere."""
    return [
        Record(
            *("made-up", "needle", "embedded_needle", method, variant, f"0-{place}", 0, length),
            score=1.0 if method == "baseline" or depth < 0.2 else 0.0,
            fidelity_top1=1.0 if method == "baseline" else 0.5,
            details={"length": length, "depth": depth},
        )
        for length in lengths
        for place, depth in enumerate(depths)
        for method, variant in (("baseline", ""), ("lazyllm", "keep=0.5"))
    ]


def test_needles_stand_by_length_and_depth(tmp_path: Path) -> None:
    for length in (300, 900):
        task = {"name": "needle", "datasets": ["needle"], "parameters": {"length": length}}
        write_run(tmp_path / str(length), needles((length,)), task=task)
    ((name, _, figure),) = artefacts.build_figures(load([tmp_path]), ("needle",))
    assert name == "needle"
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["Baseline", "LazyLLM"] * 2
    shown = {text.get_position(): text.get_text() for text in panels[1].texts}
    assert shown == {
        (x, y): value for x in (0, 1) for y, value in ((0, "100"), (1, "0"), (4, "0"))
    }  # nothing lay at 40 to 80%
    assert {text.get_text() for text in panels[3].texts} == {"50"}
    assert [label.get_text() for label in panels[3].get_xticklabels()] == ["300", "900"]
    assert "n=1 to 2 in each cell" in figure.get_suptitle()


def test_needles_of_one_length_are_no_heat_map(tmp_path: Path) -> None:
    write_run(tmp_path / "run", needles((300,)))
    assert not list(artefacts.build_figures(load([tmp_path]), ("needle",)))
