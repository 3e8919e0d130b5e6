"""Methods that drop prompt tokens leave the chat format whole: ChatML, Llama 2's [INST], XGen's header."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chat_models import FORMATS, chat_models, save_chat
from test_methods_shortening import prompt_seen
from test_tasks_longbench import task_like

from lazybench.errors import UserError
from lazybench.methods.prompt_compression import PromptCompression
from lazybench.methods.random_drop import RandomDrop
from lazybench.methods.request import Request
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.tasks.base import Sample, place_of
from lazybench.tasks.prompting import encode_prompt, generation_kwargs

DOCUMENT = "".join(f"Line {number} says that a tree has roots and leaves. Some fall.\n" for number in range(12))
QUESTION = "\n\nWhat falls in autumn?\nAnswer:"
PROMPT = f"Read the text below.\n\n{DOCUMENT}{QUESTION}"
CHATS = [name for name in FORMATS if name != "none"]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Request]:
    return {name: request_of(loaded) for name, loaded in chat_models(tmp_path_factory.mktemp("checkpoints")).items()}


def request_of(loaded: LoadedModel) -> Request:
    prompt = encode_prompt(loaded, task_like(), Sample("0", PROMPT, (), context=place_of(DOCUMENT, PROMPT)), 4)
    kwargs = {**generation_kwargs(loaded, task_like()), "max_new_tokens": 2}
    return Request(
        loaded.model, loaded.tokenizer, prompt.ids, kwargs, seed=3, template=prompt.template, context=prompt.context
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_context_alone_gives_way(name: str, requests: dict[str, Request]) -> None:
    request = requests[name]
    seen = prompt_seen(PromptCompression(0.5), request)[0]
    text = str(request.tokenizer.decode(seen))
    assert "Read the text below." in text
    assert QUESTION.strip() in text
    assert text.count("Line") < 12
    assert len(seen) < 0.7 * request.prompt_ids.shape[1]
    if name in CHATS:  # all of the format stays
        assert request.template is not None
        first, last = (template.int().argmin() for template in (request.template, request.template.flip(0)))
        assert torch.equal(seen[:first], request.prompt_ids[0, :first])  # the header
        assert torch.equal(seen[-last:], request.prompt_ids[0, -last:])  # the generation prompt
    whole = str(request.tokenizer.decode(prompt_seen(PromptCompression(0.05), request)[0]))
    assert "Line" not in whole  # less than the rest alone: the document goes, the rest stays
    assert QUESTION.strip() in whole


@pytest.mark.parametrize("name", CHATS)
def test_random_drop_without_exemption_drops_the_template_too(name: str, requests: dict[str, Request]) -> None:
    request = requests[name]
    assert request.template is not None
    numbered = replace(request, prompt_ids=torch.arange(len(request.template))[None])
    spared, literal = RandomDrop(0.5), RandomDrop(0.5, spare_template=False)
    assert spared.label != literal.label
    own = set(request.template.nonzero()[:, 0].tolist())
    kept = {method: set(prompt_seen(method, numbered)[0].tolist()) for method in (spared, literal)}
    assert own <= kept[spared]
    assert not own <= kept[literal]
    assert len(kept[spared]) == len(kept[literal])  # the same prefill: one share for both


def test_a_task_without_a_context_is_refused_in_one_line(requests: dict[str, Request]) -> None:
    request = replace(requests["chatml"], context=None)
    with pytest.raises(UserError, match="which part of its prompt is the context; choose another"):
        PromptCompression(0.5).run(request)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("strftime_now('%d %b %Y')", "26 Jul 2024"),
        ("strftime_now('%A, %Y-%m-%d, %-d %B') if strftime_now is defined", "Friday, 2024-07-26, 26 July"),
        ("strftime_now('%H' + ':%M')", "00:00"),
        ("strftime_now('%F %T, %e.')", "2024-07-26 00:00:00, 26."),
        ("date_string if date_string is defined else 'no date'", "no date"),
    ],
)
def test_a_template_that_asks_for_the_day_gets_the_same_on_all_days(asked: str, said: str, tmp_path: Path) -> None:
    """Whatever the clock says: the date is pinned, and the provenance of those that ask holds it."""
    template = f"Today is {{{{ {asked} }}}}: {{{{ messages[0]['content'] }}}}"
    loaded = load_model(ModelSpec("tiny", path=save_chat(tmp_path, template)))
    assert loaded.wrap_chat("Hello") == f"Today is {said}: Hello"
    assert loaded.provenance.get("chat_date") == ("2024-07-26" if "strftime_now" in asked else None)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{% for %}", "Expected an expression"),
        ("{{ cycler.__init__.__globals__.os.getcwd() }}", "unsafe"),
        ("always the same", "leaves the user's text out"),
        ("{{ range(99999) | random }} {{ messages[0]['content'] }}", "another text each time"),
    ],
)
def test_a_template_that_makes_no_prompt_is_refused_when_loading(template: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as told:
        load_model(ModelSpec("tiny", path=save_chat(tmp_path, template)))
    assert "model.chat_format=none" in str(told.value)
    load_model(ModelSpec("tiny", path=tmp_path, chat_format="none"))
