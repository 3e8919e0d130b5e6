"""Every notebook runs on a results folder and shows what it is named for; none is stored with outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from synthetic_results import write_results

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("notebooks") / "results")


def test_one_per_figure_and_one_for_the_tables():
    assert [path.stem for path in NOTEBOOKS] == ["fig1", "fig2", "fig5", "fig6", "fig7", "tables"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_reads_what_is_published_by_default(path):
    named = re.search(r'"results" / "published" / "(\w+)"', nbformat.read(path, as_version=4).cells[1].source)
    assert named
    assert list((path.parents[1] / "results" / "published" / named[1]).rglob("samples.jsonl"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_shows_its_artefact(path, results, monkeypatch):
    monkeypatch.setenv("LAZYBENCH_RESULTS", str(results))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown = {kind for output in notebook.cells[-1].outputs for kind in output.get("data", {})}
    assert ("text/html" if path.stem == "tables" else "image/png") in shown
