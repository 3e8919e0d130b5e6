"""What a task is: documents with a prompt and answers, limits for the generation, and a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lazybench.pruning.settings import path_of

if TYPE_CHECKING:
    from torch import Tensor

    from lazybench.models.spec import LoadedModel


@dataclass(frozen=True)
class Sample:
    """One document of a task."""

    sample_id: str
    prompt: str  # the task's template filled in; not truncated, not wrapped in a chat format
    answers: tuple[str, ...]
    all_classes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)  # length bucket, needle depth, ...
    context: range | None = None  # the document's characters of the prompt, without instruction and question


@dataclass(frozen=True)
class Prompt:
    """A sample's prompt as a model reads it, and which of its tokens are what."""

    ids: Tensor  # (1, prompt_tokens), long
    template: Tensor  # (prompt_tokens,) bool: the chat format's tokens and the begin of text, nothing of the sample's
    context: Tensor | None  # (prompt_tokens,) bool: the document's tokens; None: the task does not tell them apart
    truncated_from: int | None = None  # prompt_tokens before the middle was cut out; None: it is whole


@dataclass(frozen=True)
class DataSettings:
    """Where a task's documents come from."""

    root: Path | None = None  # folder of LongBench-schema JSONL files, one a dataset; None: the hub
    limit: int | None = None  # how many samples, from the front of the task's order
    seed: int = 0
    shard: tuple[int, int] = (0, 1)  # (index from 0, count): this job takes samples index::count
    parameters: Mapping[str, Any] = field(default_factory=dict)  # the task's own (needle: depth, length)

    def __post_init__(self) -> None:
        if self.root is not None:
            object.__setattr__(self, "root", path_of(self.root))


class Task(Protocol):
    """A generation task under its official protocol."""

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

    @property
    def stop_strings(self) -> tuple[str, ...]: ...  # texts that end the generation; none for LongBench

    def samples(self) -> Sequence[Sample]: ...

    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        """The prompt's tokens, so many that ``new_tokens`` fit the model's window behind them.

        Raises:
            UserError: they can't, or what the task is about would be cut away.
        """
        ...

    def score(self, prediction: str, sample: Sample) -> float:
        """The official score of one raw prediction, 0..1."""
        ...


def place_of(part: str, prompt: str) -> range | None:
    """Which characters of the prompt are ``part``, none where it is empty; None where it is not found."""
    start = prompt.find(part)
    return None if start < 0 else range(start, start + len(part))
