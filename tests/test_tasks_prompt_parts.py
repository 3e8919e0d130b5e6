"""Which tokens of a prompt are the chat format's and which the document's: ChatML, Llama 2, XGen, none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat_models import FORMATS, chat_models
from test_tasks_longbench import task_like

from lazybench.errors import UserError
from lazybench.models import LoadedModel
from lazybench.models.chat import wrap
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.base import Sample, place_of
from lazybench.tasks.prompting import encode_prompt

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


@pytest.mark.parametrize("task_name", ["stdlib_retrieval", "needle"])
def test_embedded_tasks_say_where_their_document_stands(task_name: str) -> None:
    (sample,) = build_task(task_name, DataSettings(limit=1)).samples()
    assert sample.context is not None
    document = sample.prompt[sample.context.start : sample.context.stop]
    assert len(sample.prompt) - 700 < len(document) < len(sample.prompt)
