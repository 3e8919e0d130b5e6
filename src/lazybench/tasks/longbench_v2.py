"""LongBench v2: 503 multiple-choice questions over contexts of 8,000 to two million words.

LongBench v2 (arXiv 2412.15204), THUDM/LongBench: pred.py and prompts/0shot.txt. Deviations:
docs/long_context_tasks.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import DataSettings, Prompt, Sample, place_of
from lazybench.tasks.categories import CATEGORIES
from lazybench.tasks.documents import hub_errors, hub_file, read_file
from lazybench.tasks.prompting import encode_prompt
from lazybench.tasks.rows import read_rows

HUB_ID = "zai-org/LongBench-v2"
HUB_REVISION = "2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9"
HUB_FILE = "data.json"
FILE = "longbench_v2.jsonl"
DOMAINS = {
    "longbench_v2_single_doc_qa": "Single-Document QA",
    "longbench_v2_multi_doc_qa": "Multi-Document QA",
    "longbench_v2_in_context_learning": "Long In-context Learning",
    "longbench_v2_dialogue_history": "Long-dialogue History Understanding",
    "longbench_v2_code_repository": "Code Repository Understanding",
    "longbench_v2_structured_data": "Long Structured Data Understanding",
}
MOST_PROMPT_TOKENS = 120_000  # config/model2maxlen.json, for every model with open weights
CHOICES = ("choice_A", "choice_B", "choice_C", "choice_D")
FIELDS = ("_id", "domain", "question", *CHOICES, "answer", "context")
# what only groups the results, and may be missing; a question's length is short, medium or long
GROUPS = {"difficulty": "difficulty", "length": "length_bucket", "sub_domain": "sub_domain"}
TEMPLATE = """Please read the following text and answer the question below.

<text>
{context}
</text>

What is the correct answer to this question: {question}
Choices:
(A) {choice_A}
(B) {choice_B}
(C) {choice_C}
(D) {choice_D}

Format your response as follows: "The correct answer is (insert answer here)"."""


@dataclass(frozen=True)
class LongBenchV2:
    """All questions (``longbench_v2``), or those of one domain (``longbench_v2_single_doc_qa`` and five more)."""

    name: str
    settings: DataSettings
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    stop_at_newline: bool = False
    chat_format: bool = True
    stop_strings: tuple[str, ...] = ()

    @property
    def category(self) -> str:
        return CATEGORIES[self.name]

    @property
    def source(self) -> str:
        return f"file {FILE}" if self.settings.root is not None else f"hub {HUB_ID}@{HUB_REVISION}"

    @cached_property
    def _content(self) -> bytes:
        if self.settings.root is not None:
            return read_file(self.settings.root, FILE)
        with hub_errors(HUB_ID, HUB_REVISION, FILE):
            return hub_file(HUB_ID, HUB_FILE, HUB_REVISION).read_bytes()

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._content).hexdigest()

    @cached_property
    def _samples(self) -> list[Sample]:
        located = read_rows(FILE, self._content)
        for where, row in located:
            _check(where, row)
        rows = [row for _, row in located]
        domain = DOMAINS.get(self.name)
        chosen = [row for row in rows if domain is None or row["domain"] == domain]
        if not chosen:
            raise UserError(f"{self.source} holds no question{f' of the domain {domain}' if domain else ''}")
        index, count = self.settings.shard
        return [_sample(row) for row in chosen[: self.settings.limit][index::count]]

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        return encode_prompt(loaded, self, sample, new_tokens, joined_halves)

    def score(self, prediction: str, sample: Sample) -> float:
        return float(extract_answer(prediction) == sample.answers[0])


def joined_halves(tokenizer: PreTrainedTokenizerBase, prompt: str, limit: int) -> tuple[str, str]:
    """The first and the last half of a longer prompt's tokens, joined before they are decoded."""
    limit = min(limit, MOST_PROMPT_TOKENS)
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    if len(ids) <= limit:
        return prompt, ""
    first, last = ids[: limit // 2], ids[-limit // 2 :]
    whole, begin = (str(tokenizer.decode(part, skip_special_tokens=True)) for part in (first + last, first))
    border = len(os.path.commonprefix([whole, begin]))  # noqa: RUF071 - no paths: characters are meant
    return whole[:border], whole[border:]


def extract_answer(response: str) -> str | None:
    """The letter after "The correct answer is", in brackets or, where none stands in brackets, without."""
    plain = response.strip().replace("*", "")
    found = re.search(r"The correct answer is \(([A-D])\)", plain) or re.search(r"The correct answer is ([A-D])", plain)
    return found[1] if found else None


def _check(where: str, row: Mapping[str, Any]) -> None:
    for field in (*FIELDS, *(group for group in GROUPS if row.get(group) is not None)):
        if not isinstance(row.get(field), str):
            raise UserError(f"{where}: field {field!r} must be a text, not {row.get(field)!r:.40}")
    if row["answer"] not in ("A", "B", "C", "D"):
        raise UserError(f"{where}: field 'answer' must be A, B, C or D, not {row['answer']!r:.40}")


def _sample(row: Mapping[str, Any]) -> Sample:
    prompt = TEMPLATE.format(**{field: row[field].strip() for field in ("context", "question", *CHOICES)})
    groups = {name: row[field] for field, name in GROUPS.items() if row.get(field) is not None}
    details = {"domain": row["domain"], **groups}
    context = place_of(row["context"].strip(), prompt)
    return Sample(row["_id"], prompt, (row["answer"],), details=details, context=context)
