"""Where LongBench's documents come from: local files, the hub's layouts, and what is said of bad ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from longbench_rows import row, write

from lazybench.errors import UserError
from lazybench.tasks import DataSettings, build_task


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([{k: v for k, v in row().items() if k != "context"}], "line 1: field 'context' is missing"),
        ([{k: v for k, v in row().items() if k != "input"}], "line 1: field 'input' is missing"),
        ([{k: v for k, v in row().items() if k != "_id"}], "line 1: field '_id' is missing"),
        ([row(0), row(1, answers="yes")], "line 2: field 'answers' must be a list of texts"),
        ([row(answers=[])], "line 1: field 'answers' is empty"),
        ([row(answers=[1])], "line 1: field 'answers' must be a list of texts"),
        ([row(length="long")], "line 1: field 'length' must be a whole number"),
        ([row(all_classes=[None])], "line 1: field 'all_classes' must be a list of texts"),
        ([], "holds no documents"),
    ],
)
def test_bad_data_names_file_line_and_field(lines: list[Any], named: str, tmp_path: Path) -> None:
    write(tmp_path, "qasper", lines) if lines else (tmp_path / "qasper.jsonl").write_text("")
    with pytest.raises(UserError) as caught:
        build_task("qasper", DataSettings(root=tmp_path))
    assert "qasper.jsonl" in str(caught.value)
    assert named in str(caught.value)


def test_a_missing_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=.*none is not a folder"):
        build_task("qasper", DataSettings(root=tmp_path / "none"))
    write(tmp_path, "trec", [row()])
    with pytest.raises(UserError, match=r"has no qasper\.jsonl; it holds trec\.jsonl"):
        build_task("qasper", DataSettings(root=tmp_path))


def test_without_a_hub_the_error_says_what_to_do(tmp_path: Path) -> None:
    program = "from lazybench.tasks import *; build_task('qasper', DataSettings())"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError" in last
    assert "go online (unset HF_HUB_OFFLINE), or give a folder with qasper.jsonl: data.root=FOLDER" in last


def test_unknown_task_names_the_close_ones() -> None:
    with pytest.raises(UserError, match="did you mean qasper"):
        build_task("qaspr", DataSettings())
    with pytest.raises(UserError, match="gsm8k"):
        build_task("lm_eval/gsm8kk", DataSettings())
