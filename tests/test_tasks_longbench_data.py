"""Where LongBench's documents come from: local files, the hub's layouts, and what is said of bad ones."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from longbench_rows import row, write

from lazybench.errors import UserError
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.documents import archive


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([row(0), "{not json"], "line 2: not JSON"),
        ([row(0), "[1, 2]"], "line 2: expected a JSON object, found list"),
        ([row(0), "", row(1)], "line 2: blank line"),
        ([{k: v for k, v in row().items() if k != "context"}], "line 1: field 'context' is missing"),
        ([{k: v for k, v in row().items() if k != "input"}], "line 1: field 'input' is missing"),
        ([{k: v for k, v in row().items() if k != "_id"}], "line 1: field '_id' is missing"),
        ([row(0), row(1, answers="yes")], "line 2: field 'answers' must be a list of texts"),
        ([row(answers=[])], "line 1: field 'answers' is empty"),
        ([row(answers=[1])], "line 1: field 'answers' must be a list of texts"),
        ([row(length="long")], "line 1: field 'length' must be a whole number"),
        ([row(all_classes=[None])], "line 1: field 'all_classes' must be a list of texts"),
        ([row(0), row(0)], "line 2: _id 'id0' stands on line 1 already"),
        ([], "holds no documents"),
    ],
)
def test_bad_data_names_file_line_and_field(lines: list[Any], named: str, tmp_path: Path) -> None:
    write(tmp_path, "qasper", lines) if lines else (tmp_path / "qasper.jsonl").write_text("")
    with pytest.raises(UserError) as caught:
        build_task("qasper", DataSettings(root=tmp_path))
    assert "qasper.jsonl" in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_missing_file_and_bytes_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=.*none is not a folder"):
        build_task("qasper", DataSettings(root=tmp_path / "none"))
    write(tmp_path, "trec", [row()])
    with pytest.raises(UserError, match=r"has no qasper\.jsonl; it holds trec\.jsonl"):
        build_task("qasper", DataSettings(root=tmp_path))
    (tmp_path / "lcc.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(UserError, match=r"lcc\.jsonl line 1: not UTF-8"):
        build_task("lcc", DataSettings(root=tmp_path))


def test_without_a_network_the_hubs_archive_is_read_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = archive("qasper")
    folder = tmp_path / f"datasets--{file.hub_id.replace('/', '--')}" / "snapshots" / file.revision
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / file.hub_name, "w") as zipped:
        zipped.write(write(tmp_path, "qasper", [row(0), row(1)]) / file.name, f"data/{file.name}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetched = build_task("qasper", DataSettings())
    own = build_task("qasper", DataSettings(root=tmp_path))
    assert fetched.samples() == own.samples()
    assert fetched.fingerprint == own.fingerprint
    assert (fetched.source, own.source) == (f"hub {file.hub_id}@{file.revision}", "file qasper.jsonl")


def test_without_a_hub_the_error_says_what_to_do(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    program = "from lazybench.tasks import *; build_task('qasper', DataSettings())"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last
    assert "data.root=FOLDER" in last


def test_unknown_task_names_the_close_ones() -> None:
    with pytest.raises(UserError, match="did you mean qasper"):
        build_task("qaspr", DataSettings())
    with pytest.raises(UserError, match="gsm8k"):
        build_task("lm_eval/gsm8kk", DataSettings())
