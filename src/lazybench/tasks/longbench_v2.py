"""LongBench v2: 503 multiple-choice questions over contexts of 8,000 to two million words.

LongBench v2 (arXiv 2412.15204), THUDM/LongBench: pred.py and prompts/0shot.txt. Deviations:
docs/tasks.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.models.spec import LoadedModel
from lazybench.tasks.base import Prompt, Sample, Task, place_of
from lazybench.tasks.documents import DataFile
from lazybench.tasks.prompting import encode_prompt
from lazybench.tasks.rows import TEXT, Row, check_fields, read_rows

FILE = DataFile("longbench_v2.jsonl", "zai-org/LongBench-v2", "2b48e494f2c7a2f0af81aae178e05c7e1dde0fe9", "data.json")
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


class LongBenchV2(Task):
    """All questions; a sample's domain is in its details."""

    max_new_tokens = 128

    @cached_property
    def source(self) -> str:
        return FILE.source(self.settings.root)

    @cached_property
    def _content(self) -> bytes:
        return FILE.read(self.settings.root)

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._content).hexdigest()

    def all_samples(self) -> Iterator[Sample]:
        if not (rows := read_rows(FILE.name, self._content)):
            raise UserError(f"{self.source} holds no question")
        yield from map(_sample, rows)

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


def _sample(row: Row) -> Sample:
    check_fields(row, dict.fromkeys(FIELDS, TEXT), dict.fromkeys(GROUPS, TEXT))
    where, fields = row
    if fields["answer"] not in ("A", "B", "C", "D"):
        raise UserError(f"{where}: field 'answer' must be A, B, C or D, not {fields['answer']!r:.40}")
    prompt = TEMPLATE.format(**{name: fields[name].strip() for name in ("context", "question", *CHOICES)})
    groups = {group: fields[name] for name, group in GROUPS.items() if fields.get(name) is not None}
    details = {"domain": fields["domain"], **groups}
    context = place_of(fields["context"].strip(), prompt)
    return Sample(fields["_id"], prompt, (fields["answer"],), details=details, context=context)
