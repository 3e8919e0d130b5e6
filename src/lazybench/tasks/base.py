"""What a task is: samples with a prompt and answers, limits for the generation, and a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lazybench.errors import UserError
from lazybench.pruning.settings import path_of, typed
from lazybench.tasks.catalogue import CATEGORIES

if TYPE_CHECKING:
    from torch import Tensor

    from lazybench.models.spec import LoadedModel

MOST = 1_000_000  # tokens, characters, samples: beyond any model's window


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


class Task(ABC):
    """A generation task under its official protocol."""

    category: str = ""  # whose samples are averaged together: ``tasks.CATEGORIES``
    min_new_tokens: int = 0  # samsum: one token before its newline may stop it
    stop_at_newline: bool = False  # samsum: the newline token ends the generation
    stop_strings: tuple[str, ...] = ()  # texts that end the generation; none for LongBench
    chat_format: bool = True  # False for trec, triviaqa, samsum, lsht, lcc, repobench-p

    def __init__(self, name: str, settings: DataSettings) -> None:
        self.name = name
        self.settings = settings
        self.category = CATEGORIES.get(name, self.category)

    @property
    @abstractmethod
    def max_new_tokens(self) -> int:
        """The generation's official length."""

    @property
    @abstractmethod
    def source(self) -> str:
        """``"hub THUDM/LongBench@revision"`` or ``"file qasper.jsonl"``."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the data, for the provenance."""

    @abstractmethod
    def all_samples(self) -> Iterable[Sample]:
        """Every sample in the task's order, made as it is asked for.

        Raises:
            UserError: a parameter or the data are no good.
        """

    @cached_property
    def _samples(self) -> list[Sample]:
        index, count = self.settings.shard
        return list(islice(self.all_samples(), self.settings.limit))[index::count]

    def samples(self) -> Sequence[Sample]:
        """Those that ``settings`` leave: the limit first, then this job's shard of it."""
        return self._samples

    @abstractmethod
    def encode(self, loaded: LoadedModel, sample: Sample, new_tokens: int) -> Prompt:
        """The prompt's tokens, so many that ``new_tokens`` fit the model's window behind them.

        Raises:
            UserError: they can't, or what the task is about would be cut away.
        """

    @abstractmethod
    def score(self, prediction: str, sample: Sample) -> float:
        """The official score of one raw prediction, 0..1."""

    def whole_number(self, name: str, default: int, least: int = 1) -> int:
        """A parameter of the task.

        Raises:
            UserError: it is not a whole number of at least ``least``, or more than any memory holds.
        """
        value = int(
            typed(Annotated[int, least], self.settings.parameters.get(name, default), f"task.parameters.{name}")
        )
        if value > MOST:
            raise UserError(f"task.parameters.{name}={value} must be at most {MOST}")
        return value


def place_of(part: str, prompt: str) -> range | None:
    """Which characters of the prompt are ``part``, none where it is empty; None where it is not found."""
    start = prompt.find(part)
    return None if start < 0 else range(start, start + len(part))
