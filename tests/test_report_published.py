"""What ``make results`` writes: tables between markers, each number against the records it stands for."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from published import main
from synthetic_results import write_run

from lazybench.report.curves import Curve, curves_of, judged, numbers
from lazybench.report.results import load
from lazybench.run.campaign import pack
from lazybench.run.record import Record

PAGES = {"README.md": ("leaderboard", "which"), "docs/results.md": ("leaderboard",)}
SETTINGS = {"taper": 1.0, "lazyllm": 2.0, "random_drop": 1.0}  # KL over the sample's hardness
HARD = numpy.random.default_rng(5).lognormal(-3, 1, 12)
NOISE = numpy.tile([0.6, 2.0], 6)  # undecided


def records(model: str = "made-up", score: float = 0.8, ratio: float = 2.05) -> list[Record]:
    """Twelve samples, one setting of each method at one FLOPs ratio."""
    found = []
    for place, hard in enumerate(HARD):
        task = ("qasper", "musique")[place % 2]
        category = ("single_doc_qa", "multi_doc_qa")[place % 2]
        plain = Record(model, task, category, "baseline", {}, str(place), 0, 1000, output_tokens=4, score=score)
        found.append(replace(plain, flops_ratio=1.0, kv_bytes_end=1000, aux_bytes_end=0, fidelity_kl=0.0))
        for method, times in SETTINGS.items():
            kl = hard * (NOISE[place] if method == "random_drop" else times)
            params = {"pruning": {"keep": [0.5] * 3}} if method == "lazyllm" else {"keep": 0.5}
            params = {} if method == "taper" else params
            one = replace(plain, method=method, params=params, flops_ratio=ratio, fidelity_kl=kl, fidelity_first_kl=kl)
            found.append(replace(one, kv_bytes_end=900, aux_bytes_end=0, fidelity_top1=0.5, score=score / 2))
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two models' parts, and pages with markers."""
    for part in ("smollm2_1500", "qwen_1_5b_800"):
        write_run(tmp_path / part, records(part))
        pack([tmp_path / part], tmp_path / f"{part}.parquet")
    (tmp_path / "docs").mkdir()
    for page, names in PAGES.items():
        markers = "".join(f"<!-- {name} -->\nold\n<!-- end -->\nkept\n" for name in names)
        (tmp_path / page).write_text(f"before\n{markers}<!-- scores -->\nof before\n<!-- end -->\n")
    return tmp_path


def test_tables_stand_between_their_markers_with_the_records_numbers(site: Path) -> None:
    assert main([str(site), str(site)]) == 0
    text = {page: (site / page).read_text() for page in PAGES}
    for page, names in PAGES.items():
        assert "\nold\n" not in text[page]
        assert text[page].count("kept") == len(names)
        assert "of before" in text[page]  # no part measured it
    for cell in (f"{math.exp(numpy.log(HARD).mean()):.3f} [", "SmolLM2-135M, 1,500 tokens (n=12)", "tokens (n=12) |"):
        assert cell in text["README.md"]
    lines = text["docs/results.md"].splitlines()
    assert sum("is closer than LazyLLM 0.50 [0.50, 0.50]; undecided against Random token drop" in x for x in lines) == 2
    assert "FLOPs ratio of 1.5x" not in text["docs/results.md"]  # no setting is near it
    (at_two,) = re.findall(r"^\| +2x \| +Taper \(or Random token drop\) \| +(.*?) \|$", text["README.md"], re.MULTILINE)
    assert at_two == "Taper (or Random token drop)"
    which = text["README.md"].partition("<!-- which -->")[2]
    kl = next(line for line in lines if line.startswith("| Taper")).split("|")[2].strip()
    rows = [line for line in which.splitlines() if "(n=12) |" in line]
    assert len(rows) == 4  # of two needs and two models, at the leaderboard's own ratio and with its KL
    for row in rows:
        assert f"(n=12) | Taper {kl}; not told apart: Random token drop | `{{method: taper}}` 2.05 |" in row
    for absent in ("code", "one fact", "window", "memory", "draft"):  # not measured, or not that much saved
        assert absent not in which
    assert (site / "docs" / "images" / "front.png").stat().st_size > 10_000
    assert main([str(site), str(site)]) == 0
    assert text == {page: (site / page).read_text() for page in PAGES}


def test_two_schedules_of_one_method_are_two_rows_and_a_draft_is_said_to_pay_or_not(site: Path) -> None:
    found = records("qwen")
    early = [replace(r, params={"pruning": {"depths": [0.1, 0.2, 0.3], "keep": [0.5] * 3}}) for r in found]
    drafted = [replace(r, method="spec_prefill", fidelity_kl=4 * (r.fidelity_kl or 0)) for r in found]
    found += [replace(r, fidelity_kl=1.5 * (r.fidelity_kl or 0)) for r in early if r.method == "lazyllm"]
    found += [replace(new, params={}) for old, new in zip(found, drafted, strict=False) if old.method == "taper"]
    write_run(site / "drafted", found)
    pack([site / "drafted"], site / "qwen_1_5b_1500.parquet")
    assert main([str(site), str(site)]) == 0
    text = (site / "docs" / "results.md").read_text()
    assert "LazyLLM (depths=0.1,0.2,0.3)" in text
    assert "LazyLLM (depths=0.3,0.6,0.9)" in text
    (row,) = (line for line in (site / "README.md").read_text().splitlines() if "a draft model" in line)
    assert re.search(r"SpecPrefill \S+ \[.*?\]: it does not pay beside Taper .*method: spec_prefill", row)


def test_one_fact_is_a_count_of_answers(site: Path) -> None:
    found = [replace(r, details={"depth": (0.5, 0.9)[int(r.sample_id) % 2]}) for r in records(score=0.0)]
    found = [replace(r, score=float(r.method in ("baseline", "lazyllm"))) for r in found]
    write_run(site / "needle", found)
    pack([site / "needle"], site / "smollm2_needle.parquet")
    assert main([str(site), str(site)]) == 0
    (row,) = (line for line in (site / "README.md").read_text().splitlines() if "one fact" in line)
    middle = sum(r.method == "lazyllm" and r.details == {"depth": 0.5} for r in found)
    assert f"LazyLLM {middle} at 2.05, " in row
    assert f"(of {middle} found at 30% to 70% of the depth, the plain model " in row
    assert row.endswith("| `{method: lazyllm, pruning: {keep: [0.5,0.5,0.5]}}` 2.05 |")


@pytest.mark.parametrize("lost", ["<!-- leaderboard -->", "<!-- end -->"])
def test_without_a_marker_nothing_is_written(site: Path, lost: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = site / "docs" / "results.md"
    page.write_text(page.read_text().replace(lost, "", 1))
    before = (site / "README.md").read_text()
    assert main([str(site), str(site)]) == 2
    assert "results.md lacks <!-- leaderboard -->" in capsys.readouterr().err
    assert (site / "README.md").read_text() == before
    assert main([str(site / "docs"), str(site)]) == 2
    assert main([]) == 2


@pytest.mark.parametrize(("ratio", "stands"), [(1.93, True), (2.07, True), (1.91, False), (2.09, False)])
def test_a_lone_setting_stands_for_a_speed_within_4_percent(tmp_path: Path, ratio: float, stands: bool) -> None:
    write_run(tmp_path / "run", records(ratio=ratio))
    ((_, settings),) = judged(load([tmp_path]).samples)
    curves: list[Curve] = curves_of(settings, "flops_ratio")
    assert [len(curve.at(2.0)) for curve in curves] == [12 * stands] * len(SETTINGS)


def test_a_setting_near_a_speed_stands_for_it_where_its_neighbour_lacks_samples(tmp_path: Path) -> None:
    near, far = records(ratio=1.95), records(ratio=3.0)
    others = [replace(r, params={"keep": 0.2}) for r in far if r.method == "random_drop" and int(r.sample_id) < 11]
    for samples, kl in ((others, "near"), ([*others, replace(others[0], sample_id="11", task="musique")], "between")):
        write_run(tmp_path / kl, near + samples)
        ((_, settings),) = judged(load([tmp_path / kl]).samples)
        (curve,) = (one for one in curves_of(settings, "flops_ratio") if one.name[0] == "random_drop")
        found = curve.at(2.0)
        assert len(found) == 12
        measured = curve.settings[0].samples["fidelity_kl"]
        assert numpy.allclose(found["fidelity_kl"], measured.loc[found.index]) == (kl == "near")


@pytest.mark.parametrize(("plain", "shown"), [(0.04, False), (0.06, True)])
def test_beside_a_plain_model_at_the_floor_no_score_is_shown(tmp_path: Path, plain: float, shown: bool) -> None:
    write_run(tmp_path / "run", records(score=plain))
    ((_, settings),) = judged(load([tmp_path]).samples)
    assert [math.isfinite(numbers(one.samples)["relative_score"]) for one in settings] == [shown] * 3  # type: ignore[arg-type]
