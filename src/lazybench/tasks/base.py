"""What a task is: documents with a prompt and answers, limits for the generation, and a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Sample:
    """One document of a task."""

    sample_id: str
    prompt: str  # the task's template filled in; not truncated, not wrapped in a chat format
    answers: tuple[str, ...]
    all_classes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)  # length bucket, needle depth, ...


@dataclass(frozen=True)
class DataSettings:
    """Where a task's documents come from."""

    root: Path | None = None  # folder of LongBench-schema JSONL files, one a dataset; None: the hub
    limit: int | None = None  # how many samples, from the front of the task's order
    seed: int = 0
    shard: tuple[int, int] = (0, 1)  # (index from 0, count): this job takes samples index::count
    parameters: Mapping[str, Any] = field(default_factory=dict)  # the task's own (needle: depth, length)


class Task(Protocol):
    """A generation task under its official protocol.

    Two more methods are optional: ``encode(loaded, sample)`` gives the prompt's token ids itself, for a benchmark that
    builds prompts to a length (RULER); ``truncate(tokenizer, prompt, limit)`` cuts too long a prompt in a benchmark's
    own way (LongBench v2).
    """

    @property
    def name(self) -> str: ...  # "qasper"
    @property
    def category(self) -> str: ...  # "single_doc_qa", "code", "code_e", "embedded_code", ...: tasks.CATEGORIES
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def min_new_tokens(self) -> int: ...  # samsum: one token before its newline may stop it
    @property
    def stop_at_newline(self) -> bool: ...  # samsum: the newline token ends the generation
    @property
    def chat_format(self) -> bool: ...  # False for trec, triviaqa, samsum, lsht, lcc, repobench-p
    @property
    def fingerprint(self) -> str: ...  # sha256 of the data, for the provenance
    @property
    def source(self) -> str: ...  # "hub THUDM/LongBench@revision" or "file qasper.jsonl"

    def samples(self) -> Sequence[Sample]: ...

    def score(self, prediction: str, sample: Sample) -> float:
        """The official score of one raw prediction, 0..1."""
        ...
