"""A task of the runner around lm-eval's task object: its documents, prompts, limits and scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError
from lazybench.tasks.base import DataSettings, Sample, place_of
from lazybench.tasks.categories import CATEGORIES, length_bucket
from lazybench.tasks.documents import HUB_ID, HUB_REVISION, Documents, load_documents
from lazybench.tasks.lm_eval_requests import load_task
from lazybench.tasks.prompting import OfficialPrompt
from lazybench.tasks.rows import as_utf8

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import ConfigurableTask

TASK_FILES = Path(__file__).parent / "longbench"
PLAIN_PROMPT = ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p")  # pred.py: never in a chat format


@dataclass(frozen=True)
class LmEvalTask(OfficialPrompt):
    """Any generation task of lm-eval: its own requests, to the letter.

    A sample's score is the first metric of the task's list, after the first of its filters.
    """

    name: str
    category: str
    task: ConfigurableTask
    requests: Sequence[Instance]  # one a document, in the data's order
    settings: DataSettings
    source: str
    chat_format: bool = False
    stop_at_newline: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of every document, answers among them, and of what is sent for it: prompt, stops and limits."""
        digest = hashlib.sha256()
        for request in self.requests:
            digest.update(as_utf8(f"{self.name} document {request.doc_id}", [*request.args, request.doc]))
        return digest.hexdigest()

    @property
    def max_new_tokens(self) -> int:
        return int(self._generation["max_gen_toks"])

    @property
    def min_new_tokens(self) -> int:
        return int(self._generation.get("min_new_tokens", 0))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end the generation; none for LongBench. An empty one stops nothing."""
        return tuple(text for text in self._generation["until"] if text)

    @cached_property
    def _generation(self) -> dict[str, Any]:
        from lm_eval.models.utils import normalize_gen_kwargs

        return dict(normalize_gen_kwargs(self.requests[0].args[1] or {}))

    @cached_property
    def _by_id(self) -> dict[str, Instance]:
        """By the documents' own ids where each has one that no other has, else by their places."""
        own = [request.doc.get("_id") for request in self.requests]
        unique = None not in own and len(set(map(str, own))) == len(own)
        return {str(own[place] if unique else place): request for place, request in enumerate(self.requests)}

    @cached_property
    def _samples(self) -> list[Sample]:
        index, count = self.settings.shard
        chosen = list(self._by_id.items())[: self.settings.limit][index::count]
        return [self._sample(sample_id, request) for sample_id, request in chosen]

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def _sample(self, sample_id: str, request: Instance) -> Sample:
        target = self.task.doc_to_target(request.doc)
        return Sample(sample_id, request.args[0], tuple(map(str, target if isinstance(target, list) else [target])))

    def score(self, prediction: str, sample: Sample) -> float:
        from lm_eval.models.utils import postprocess_generated_text

        text = postprocess_generated_text(prediction, list(self.stop_strings), None)
        answered = replace(self._by_id[sample.sample_id], resps=[text], filtered_resps={})
        self.task._instances = [answered]
        self.task.apply_filters()
        metrics = self.task.process_results(answered.doc, [next(iter(answered.filtered_resps.values()))])
        listed = (name for name in self.task._metric_fn_list if name in metrics)
        value = metrics.get(next(listed, next(iter(metrics), None)))
        try:
            return float("a text" if isinstance(value, str) else value)
        except (TypeError, ValueError):  # what the whole corpus's score is made of
            raise UserError(
                f"task={self.name} scores a whole corpus, not a sample; run it with lazybench lm-eval"
            ) from None


@dataclass(frozen=True)
class LongBenchTask(LmEvalTask):
    """One of our LongBench task files, over documents that are checked row by row."""

    documents: Documents | None = None

    @property
    def fingerprint(self) -> str:
        assert self.documents is not None
        return self.documents.fingerprint

    def _sample(self, sample_id: str, request: Instance) -> Sample:
        doc, prompt = request.doc, request.args[0]
        words = doc["length"]
        details = {} if words is None else {"length": words, "length_bucket": length_bucket(words)}
        answers, classes = tuple(doc["answers"]), tuple(doc["all_classes"] or ())
        return Sample(sample_id, prompt, answers, classes, details, place_of(doc["context"], prompt))


def longbench_task(name: str, settings: DataSettings) -> LongBenchTask:
    """One of our LongBench task files.

    Raises:
        UserError: as ``load_documents`` does.
    """
    root = None if settings.root is None else str(settings.root)
    hub_id = settings.parameters.get("hub_id", HUB_ID)
    revision = settings.parameters.get("revision", HUB_REVISION)
    documents = load_documents(name, root, hub_id, revision)
    dataset = name.removesuffix("_e")
    metadata = {"data_root": root, "hub_id": hub_id, "revision": revision}
    task, requests = load_task(f"lazybench_{name}", str(TASK_FILES), metadata)
    return LongBenchTask(
        name=name,
        category=CATEGORIES[name],
        task=task,
        requests=requests,
        settings=settings,
        source=documents.source,
        chat_format=dataset not in PLAIN_PROMPT,
        stop_at_newline=dataset == "samsum",
        documents=documents,
    )


def any_lm_eval_task(name: str, settings: DataSettings) -> LmEvalTask:
    """A generation task that lm-eval ships, by lm-eval's name.

    Raises:
        UserError: lm-eval has no such task, it does not generate, or its data cannot be loaded.
    """
    own = settings.parameters.get("include_path")  # a folder of the user's own task files, beside lm-eval's
    task, requests = load_task(name, own)
    source = f"lm-eval {task.config.dataset_path} {task.config.dataset_name or ''}".strip()
    return LmEvalTask(f"lm_eval/{name}", "lm_eval", task, requests, settings, source)
