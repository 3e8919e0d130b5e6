"""LongBench's prompts, truncation, chat format and limits, on files that these tests write; and a prompt's parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import FORMATS, chat_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from longbench_rows import row, tokenizer_of, write

from lazybench.errors import UserError
from lazybench.models.chat import wrap
from lazybench.models.spec import LoadedModel, ModelSpec
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.base import Sample, Task, place_of
from lazybench.tasks.catalogue import CHINESE, EXTENDED, LONGBENCH
from lazybench.tasks.documents import PROMPTS
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
        assert sample.context is not None
        assert sample.prompt[sample.context.start : sample.context.stop] == given_row["context"]
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


def test_score_goes_through_the_task(tmp_path: Path) -> None:
    classes = ["Date", "Food"]
    task = build_task("trec", DataSettings(root=write(tmp_path, "trec", [row(answers=["Date"], all_classes=classes)])))
    (sample,) = task.samples()
    assert sample.all_classes == ("Date", "Food")
    assert task.score("\nDate\nFood", sample) == 1.0
    assert task.score("Date Food", sample) == 0.5


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
    return SimpleNamespace(**{**fields, "stop_strings": (), **changed})  # type: ignore[return-value]


def test_chat_format_goes_around_the_cut_prompt(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(limit=40, wrap=lambda text: f"[INST]{text}[/INST]")
    text = "Read this. " * 50 + "The end."
    plain = truncate_middle(model.tokenizer, text, 40)
    prompt = encode_prompt(model, task_like(), Sample("0", text, ()), 8)
    whole = model.tokenizer.encode(f"[INST]{text}[/INST]")
    assert prompt.truncated_from == len(whole) > prompt.ids.shape[1]
    assert prompt.ids.dtype.is_floating_point is False
    assert prompt.ids.tolist() == [model.tokenizer.encode(f"[INST]{plain}[/INST]")]
    without = encode_prompt(model, task_like(chat_format=False), Sample("0", text, ()), 8)
    assert without.ids.tolist() == [model.tokenizer.encode(plain)]


def test_a_prompt_never_exceeds_the_window(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded(window=100, wrap=lambda text: f"A header of some length.\n{text}\n###")
    roomy = replace(model, window_tokens=2048)

    @many
    @given(st.text(alphabet="abc \nÿé中,.", max_size=600), st.sampled_from([1, 8, 60]), st.booleans())
    def check(prompt: str, new_tokens: int, chat: bool) -> None:
        task = task_like(max_new_tokens=new_tokens, chat_format=chat)
        fitted = encode_prompt(model, task, Sample("0", prompt, ()), new_tokens)
        assert fitted.ids.shape[1] + new_tokens <= 100
        assert (fitted.truncated_from is None) == (
            encode_prompt(roomy, task, Sample("0", prompt, ()), 1).ids.shape == fitted.ids.shape
        )

    check()
    for new_tokens in (99, 100_000):
        with pytest.raises(UserError, match=f"max_new_tokens={new_tokens} .* window of 100"):
            encode_prompt(model, task_like(), Sample("0", "a long prompt " * 20, ()), new_tokens)


def test_one_beginning_of_sequence_token(loaded: Callable[..., LoadedModel]) -> None:
    from tokenizers.processors import TemplateProcessing

    model = loaded(wrap=lambda text: f"<s>{text}")
    tokenizer = model.tokenizer.__class__.from_pretrained(model.spec.path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    model = LoadedModel(model.spec, model.model, tokenizer, 2048, model.wrap_chat, str, {})
    for chat in (True, False):
        ids = encode_prompt(model, task_like(chat_format=chat), Sample("0", "text", ()), 8).ids.tolist()[0]
        assert ids.count(0) == 1
        assert ids[0] == 0


def test_samsum_stops_at_the_newline_after_one_token(loaded: Callable[..., LoadedModel]) -> None:
    model = loaded()
    newline = model.tokenizer.encode("\n", add_special_tokens=False)[-1]
    kwargs = generation_kwargs(model, task_like(max_new_tokens=16, min_new_tokens=1, stop_at_newline=True))
    assert kwargs["eos_token_id"] == [1, newline]
    assert kwargs["do_sample"] is False
    ids = encode_prompt(model, task_like(), Sample("0", "Dialogue:", ()), 8).ids
    # the newline made by far the likeliest everywhere: it may not be the first token, and it ends the generation
    favour = 50.0 * (torch.arange(model.model.config.vocab_size) == newline)
    model.model.lm_head.register_forward_hook(lambda module, inputs, output: output + favour)
    out = model.model.generate(ids, **kwargs)[0, ids.shape[1] :].tolist()
    assert len(out) == 2
    assert out[0] not in (1, newline)
    assert out[1] == newline
    assert "min_new_tokens" not in generation_kwargs(model, task_like())
    assert generation_kwargs(model, task_like())["eos_token_id"] == [1]


# which tokens of a prompt are the chat format's and which the document's: ChatML, Llama 2, XGen, none
DOCUMENT = "A tree has roots.\nIts leaves fall in autumn. "
PROMPT = f"Read the text.\n\n{DOCUMENT}\n\nWhat falls?\nAnswer:"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    return chat_models(tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.parametrize("text", [PROMPT, f"  {PROMPT}\n", "x"], ids=["plain", "white space around", "one letter"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_format_is_told_from_the_text(name: str, text: str, models: dict[str, LoadedModel]) -> None:
    wrapped, user = wrap(models[name].wrap_chat, text)
    before, after = FORMATS[name]
    assert wrapped[: user.start] == before
    assert wrapped[user.stop :] == after
    assert wrapped[user.start : user.stop] == (text.strip() if name == "stripping" else text)


@pytest.mark.parametrize("name", FORMATS)
def test_every_token_of_the_format_is_the_templates(name: str, models: dict[str, LoadedModel]) -> None:
    loaded = models[name]
    prompt = encode_prompt(loaded, task_like(), Sample("0", PROMPT, (), context=place_of(DOCUMENT, PROMPT)), 8)
    before, after = FORMATS[name]
    tokens = loaded.tokenizer.convert_ids_to_tokens(prompt.ids[0].tolist())
    template, context = prompt.template.tolist(), prompt.context.tolist()
    own = loaded.tokenizer.decode(prompt.ids[0][~prompt.template])
    # tokens across a border are the template's, so nothing of the format can be among the others
    assert own.strip() in PROMPT
    assert len(own) > len(PROMPT) - 12
    first, last = template.index(False), len(template) - template[::-1].index(False)
    assert not any(template[first:last]), tokens
    assert loaded.tokenizer.decode(prompt.ids[0, last:], skip_special_tokens=False).endswith(after)
    assert before.strip() in loaded.tokenizer.decode(prompt.ids[0, :first])
    assert loaded.tokenizer.decode(prompt.ids[0][prompt.context]).strip() in DOCUMENT
    assert len(loaded.tokenizer.decode(prompt.ids[0][prompt.context])) > len(DOCUMENT) - 12
    assert not any(own_template and document for own_template, document in zip(template, context, strict=True))
    assert prompt.truncated_from is None


@pytest.mark.parametrize("name", FORMATS)
def test_the_document_is_found_after_a_cut(name: str, models: dict[str, LoadedModel]) -> None:
    loaded = models[name]
    loaded = replace(loaded, spec=replace(loaded.spec, prompt_limit_tokens=120))
    long = "".join(f"Line {number} of the text.\n" for number in range(200))
    text = f"Read the text.\n\n{long}\n\nWhat falls?\nAnswer:"
    prompt = encode_prompt(loaded, task_like(), Sample("0", text, (), context=place_of(long, text)), 8)
    assert prompt.truncated_from is not None
    assert prompt.truncated_from > prompt.ids.shape[1]
    found = str(loaded.tokenizer.decode(prompt.ids[0][prompt.context]))
    assert "Line 0 of" in found
    assert "Line 199 of" in found
    assert "Read" not in found
    assert "What" not in found


def test_a_needle_that_would_lose_its_middle_is_refused(models: dict[str, LoadedModel]) -> None:
    loaded = models["none"]
    task = build_task("needle", DataSettings(limit=1, parameters={"length": 400}))
    short = replace(loaded, spec=replace(loaded.spec, prompt_limit_tokens=300))
    (sample,) = task.samples()
    whole = task.encode(loaded, sample, 16)
    assert whole.truncated_from is None
    assert whole.context is not None
    with pytest.raises(
        UserError, match=r"length=400 makes a prompt of \d+ tokens .* choose length=\d+ or less"
    ) as told:
        task.encode(short, sample, 16)
    assert f"prompt of {whole.ids.shape[1]} tokens" in str(told.value)
    advised = int(str(told.value).split("choose length=")[1].split()[0])
    (fitting,) = build_task("needle", DataSettings(limit=1, parameters={"length": advised})).samples()
    assert task.encode(short, fitting, 16).truncated_from is None
