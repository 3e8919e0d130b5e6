"""LongBench's prompts, truncation, chat format, limits and data, on files that these tests write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel, ModelSpec
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.base import Sample, Task
from lazybench.tasks.categories import CHINESE, EXTENDED, LONGBENCH
from lazybench.tasks.documents import PROMPTS, _from_archive, _from_parquet, untemplated
from lazybench.tasks.prompting import encode_prompt, generation_kwargs, truncate_middle

many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
# dataset2maxlen.json and pred.py of commit 2e00731, stated once more
MAX_NEW_TOKENS = {
    128: ["narrativeqa", "qasper", "dureader", "samsum"],
    64: ["multifieldqa_en", "multifieldqa_zh", "trec", "lsht", "lcc", "repobench-p"],
    32: [
        "hotpotqa",
        "2wikimqa",
        "musique",
        "triviaqa",
        "passage_count",
        "passage_retrieval_en",
        "passage_retrieval_zh",
    ],
    512: ["gov_report", "qmsum", "multi_news", "vcsum"],
}
# sha256 of each template of dataset2prompt.json: a changed byte is a changed benchmark
TEMPLATES = "e7d865d712fe45e2455f5e864ac474001d7758d68d349e76ffbcdd382483358f"
NO_CHAT = {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    full: dict[str, Any] = {
        "input": f"What is {{number}} {number}?",
        "context": f"Line one {{braces}} of {number}.\nLine two {{{{jinja}}}}.\n",
        "answers": ["Paragraph 3" if number else "段落3 Paragraph 3"],
        "length": 3000 + 3000 * number,
        "dataset": "any",
        "language": "en",
        "all_classes": None,
        "_id": f"id{number}",
    }
    return {**full, **changed}


def write(folder: Path, name: str, rows: list[Any]) -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@cache
def tokenizer_of(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture
def loaded(tiny_checkpoint: Path) -> Callable[..., LoadedModel]:
    from transformers import AutoModelForCausalLM

    def build(window: int = 2048, limit: int | None = None, wrap: Callable[[str], str] = str) -> LoadedModel:
        spec = ModelSpec(name="tiny", path=tiny_checkpoint, prompt_limit_tokens=limit)
        model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
        return LoadedModel(spec, model, tokenizer_of(tiny_checkpoint), window, wrap, str, {})

    return build


@pytest.mark.parametrize("dataset", [*LONGBENCH, *CHINESE, *EXTENDED])
def test_every_dataset_is_an_lm_eval_task_with_the_official_prompt_and_limits(dataset: str, tmp_path: Path) -> None:
    rows = [row(0), row(1), row(2)]
    task = build_task(dataset, DataSettings(root=write(tmp_path, dataset, rows)))
    base = dataset.removesuffix("_e")
    template = PROMPTS[base]
    for sample, given_row in zip(task.samples(), rows, strict=True):
        wanted = template.replace("{context}", "\0").replace("{input}", given_row["input"])
        assert sample.prompt == wanted.replace("\0", given_row["context"])
        assert sample.sample_id == given_row["_id"]
        assert sample.answers == tuple(given_row["answers"])
    assert [sample.details["length_bucket"] for sample in task.samples()] == ["0-4k", "4-8k", "8k+"]
    assert base in MAX_NEW_TOKENS[task.max_new_tokens]
    assert task.chat_format == (base not in NO_CHAT)
    assert (task.min_new_tokens, task.stop_at_newline) == ((1, True) if base == "samsum" else (0, False))
    assert task.fingerprint == hashlib.sha256((tmp_path / f"{dataset}.jsonl").read_bytes()).hexdigest()
    assert task.source == f"file {dataset}.jsonl"


def test_templates_are_the_benchmarks_byte_for_byte() -> None:
    digest = hashlib.sha256(json.dumps(PROMPTS, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    assert digest == TEMPLATES
    # what other harnesses lose: trailing blanks and newlines, the blank line before the input
    assert PROMPTS["passage_count"].endswith("The final answer is: ")
    assert PROMPTS["passage_retrieval_en"].endswith("The answer is: ")
    assert PROMPTS["lcc"].endswith("{context}Next line of code:\n")
    assert PROMPTS["samsum"].endswith("{context}\n\n{input}")


def test_score_goes_through_the_task(tmp_path: Path) -> None:
    classes = ["Date", "Food"]
    task = build_task("trec", DataSettings(root=write(tmp_path, "trec", [row(answers=["Date"], all_classes=classes)])))
    (sample,) = task.samples()
    assert sample.all_classes == ("Date", "Food")
    assert task.score("\nDate\nFood", sample) == 1.0
    assert task.score("Date Food", sample) == 0.5


def test_limit_then_shard(tmp_path: Path) -> None:
    root = write(tmp_path, "qasper", [row(number) for number in range(10)])
    ids = [s.sample_id for s in build_task("qasper", DataSettings(root=root, limit=7, shard=(1, 3))).samples()]
    assert ids == ["id1", "id4"]


def test_truncation_keeps_both_halves(tiny_checkpoint: Path) -> None:
    tokenizer = tokenizer_of(tiny_checkpoint)

    @many
    @given(st.text(alphabet="abc \nÿé中,.{}", max_size=300), st.integers(2, 60))
    def check(prompt: str, limit: int) -> None:
        ids = tokenizer.encode(prompt)
        cut = truncate_middle(tokenizer, prompt, limit)
        if len(ids) <= limit:
            assert cut == prompt
        else:
            half = int(limit / 2)
            assert cut == tokenizer.decode(ids[:half]) + tokenizer.decode(ids[len(ids) - half :])

    check()


def task_like(**changed: Any) -> Task:
    from types import SimpleNamespace

    fields = {"name": "qasper", "max_new_tokens": 8, "min_new_tokens": 0, "stop_at_newline": False, "chat_format": True}
    return SimpleNamespace(**{**fields, **changed})  # type: ignore[return-value]


def test_chat_format_goes_around_the_cut_prompt(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(limit=40, wrap=lambda text: f"[INST]{text}[/INST]")
    text = "Read this. " * 50 + "The end."
    plain = truncate_middle(model.tokenizer, text, 40)
    ids = encode_prompt(model, task_like(), Sample("0", text, ()))
    assert ids.dtype.is_floating_point is False
    assert ids.tolist() == [model.tokenizer.encode(f"[INST]{plain}[/INST]")]
    without = encode_prompt(model, task_like(chat_format=False), Sample("0", text, ()))
    assert without.tolist() == [model.tokenizer.encode(plain)]


def test_a_prompt_never_exceeds_the_window(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(window=100, wrap=lambda text: f"A header of some length.\n{text}\n###")

    @many
    @given(st.text(alphabet="abc \nÿé中,.", max_size=600), st.sampled_from([1, 8, 60]), st.booleans())
    def check(prompt: str, new_tokens: int, chat: bool) -> None:
        task = task_like(max_new_tokens=new_tokens, chat_format=chat)
        assert encode_prompt(model, task, Sample("0", prompt, ())).shape[1] + new_tokens <= 100

    check()
    with pytest.raises(UserError, match="window of 100"):
        encode_prompt(model, task_like(max_new_tokens=99), Sample("0", "a long prompt " * 20, ()))


def test_one_beginning_of_sequence_token(loaded: Callable[..., LoadedModel]) -> None:
    from tokenizers.processors import TemplateProcessing

    model = loaded(wrap=lambda text: f"<s>{text}")
    tokenizer = model.tokenizer.__class__.from_pretrained(model.spec.path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    model = LoadedModel(model.spec, model.model, tokenizer, 2048, model.wrap_chat, str, {})
    for chat in (True, False):
        ids = encode_prompt(model, task_like(chat_format=chat), Sample("0", "text", ())).tolist()[0]
        assert ids.count(0) == 1
        assert ids[0] == 0


def test_samsum_stops_at_the_newline_after_one_token(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded()
    newline = model.tokenizer.encode("\n", add_special_tokens=False)[-1]
    kwargs = generation_kwargs(model, task_like(max_new_tokens=16, min_new_tokens=1, stop_at_newline=True))
    assert kwargs["eos_token_id"] == [1, newline]
    assert kwargs["do_sample"] is False
    ids = encode_prompt(model, task_like(), Sample("0", "Dialogue:", ()))
    # the newline made by far the likeliest everywhere: it may not be the first token, and it ends the generation
    model.model.lm_head.register_forward_hook(lambda module, inputs, output: _favour(output, newline))
    out = model.model.generate(ids, **kwargs)[0, ids.shape[1] :].tolist()
    assert len(out) == 2
    assert out[0] not in (1, newline)
    assert out[1] == newline
    assert "min_new_tokens" not in generation_kwargs(model, task_like())
    assert generation_kwargs(model, task_like())["eos_token_id"] == [1]


def _favour(logits: Any, token: int) -> Any:
    logits[..., token] += 50
    return logits


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
    import zipfile

    from datasets import Dataset

    rows = [row(0), row(1)]
    write(tmp_path, "qasper", rows)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(tmp_path / "qasper.jsonl", "data/qasper.jsonl")
    name, content, read = _from_archive(tmp_path / "data.zip", "qasper")
    assert (name, content, read) == ("data/qasper.jsonl", (tmp_path / "qasper.jsonl").read_bytes(), rows)
    with pytest.raises(UserError, match=r"holds no data/trec\.jsonl"):
        _from_archive(tmp_path / "data.zip", "trec")
    Dataset.from_list(rows).to_parquet(tmp_path / "part.parquet")
    assert _from_parquet(tmp_path / "part.parquet", "qasper/part.parquet")[2] == rows


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
