"""Where LongBench's documents come from: local files, the hub's layouts, and what is said of bad ones."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from longbench_rows import row, write

from lazybench.errors import UserError
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.documents import HUB_REVISION, PROMPTS, _from_archive, _from_parquet, untemplated

many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
QUESTION_STARTS = ("Question: ", "问题：", "Query: ")


def templated(dataset: str, context: str, question: str) -> dict[str, str]:
    """A row as Xnhyacinth/LongBench holds it, written from the script that made it (see kvpress)."""
    template = PROMPTS[dataset]
    prompt = template.replace("{context}", "\0").replace("{input}", question).replace("\0", context)
    ends = {
        **dict.fromkeys(["multifieldqa_zh", "dureader"], "回答："),
        **dict.fromkeys(["gov_report", "multi_news"], "Summary:"),
        **dict.fromkeys(["lcc", "repobench-p"], "Next line of code:\n"),
        "vcsum": "会议总结：",
        "passage_count": "The final answer is: ",
        "passage_retrieval_en": "The answer is: ",
        "passage_retrieval_zh": "答案是：",
        "lsht": "",
    }
    few_shot = {"trec": "Type:", "triviaqa": "Answer:", "samsum": "Summary:"}
    head, _, rest = template.partition("{context}")
    if dataset in few_shot:
        middle = rest.removesuffix("{input}")
        prefix = few_shot[dataset]
        return {"context": head + context + middle, "question": question.removesuffix(prefix), "answer_prefix": prefix}
    prefix = ends.get(dataset, "Answer:")
    body = prompt.removesuffix(prefix)
    cut = len(head) + len(context)
    middle = rest.partition("{input}")[0] if "{input}" in rest else ""
    for start in QUESTION_STARTS:
        middle = middle.removesuffix(start)
    if dataset in ("gov_report", "multi_news", "passage_count", "vcsum"):
        middle = "\n\n"
    cut += len(middle)
    return {"context": body[:cut], "question": body[cut:], "answer_prefix": prefix}


@pytest.mark.parametrize("dataset", sorted(PROMPTS))
def test_both_layouts_of_the_hub_give_the_same_prompt(dataset: str, tmp_path: Path) -> None:
    few_shot_end = {"trec": "\nType:", "triviaqa": "\nAnswer:", "samsum": "\nSummary: "}.get(dataset, "")
    no_input = "{input}" not in PROMPTS[dataset]

    @many
    @given(st.text(max_size=40), st.text(alphabet="abc \n中?", max_size=20))
    def check(context: str, question: str) -> None:
        question = "" if no_input else question + few_shot_end
        columns = templated(dataset, context, question)
        back = untemplated(PROMPTS[dataset], **columns)
        prompt = PROMPTS[dataset].replace("{context}", "\0").replace("{input}", back[1]).replace("\0", back[0])
        wanted = PROMPTS[dataset].replace("{context}", "\0").replace("{input}", question).replace("\0", context)
        assert prompt == wanted

    check()
    raw = row(input="" if no_input else f"Why?{few_shot_end}")
    rows = [{**row(), **templated(dataset, raw["context"], raw["input"])}]
    del rows[0]["input"]
    (sample,) = build_task(dataset, DataSettings(root=write(tmp_path, dataset, rows))).samples()
    write(tmp_path, dataset, [raw])
    (original,) = build_task(dataset, DataSettings(root=tmp_path)).samples()
    assert sample.prompt == original.prompt


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


def test_the_hubs_files_are_read_as_they_are(tmp_path: Path) -> None:
    """The benchmark's archive and a copy's parquet file, as the hub holds them."""
    from datasets import Dataset

    rows = [row(0), row(1)]
    write(tmp_path, "qasper", rows)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(tmp_path / "qasper.jsonl", "data/qasper.jsonl")
    name, content, read = _from_archive(tmp_path / "data.zip", "qasper")
    assert (name, content) == ("data/qasper.jsonl", (tmp_path / "qasper.jsonl").read_bytes())
    assert read == [("data/qasper.jsonl line 1", rows[0]), ("data/qasper.jsonl line 2", rows[1])]
    with pytest.raises(UserError, match=r"holds no data/trec\.jsonl"):
        _from_archive(tmp_path / "data.zip", "trec")
    Dataset.from_list(rows).to_parquet(tmp_path / "part.parquet")
    assert [read for _, read in _from_parquet(tmp_path / "part.parquet", "qasper/part.parquet")[2]] == rows


def test_without_a_network_what_was_fetched_before_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "datasets--zai-org--LongBench" / "snapshots" / HUB_REVISION
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        archive.write(write(tmp_path, "qasper", [row()]) / "qasper.jsonl", "data/qasper.jsonl")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (sample,) = build_task("qasper", DataSettings()).samples()
    assert row()["context"] in sample.prompt


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
