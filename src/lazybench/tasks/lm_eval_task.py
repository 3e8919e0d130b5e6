"""A task of the runner around lm-eval's task object: its documents, prompts, limits and scores."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazybench.errors import UserError, unknown_name
from lazybench.tasks.base import DataSettings, Sample, place_of
from lazybench.tasks.categories import CATEGORIES, length_bucket
from lazybench.tasks.documents import HUB_ID, HUB_REVISION, load_documents
from lazybench.tasks.prompting import OfficialPrompt

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

TASK_FILES = Path(__file__).parent / "longbench"
PLAIN_PROMPT = ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p")  # pred.py: never in a chat format


@dataclass(frozen=True)
class LmEvalTask(OfficialPrompt):
    """Any generation task of lm-eval, one of ours for LongBench among them.

    A sample's score is the first metric of the task's list, after the first of its filters.
    """

    name: str
    category: str
    task: ConfigurableTask
    settings: DataSettings
    fingerprint: str
    source: str
    chat_format: bool = False
    stop_at_newline: bool = False
    _docs: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def max_new_tokens(self) -> int:
        return int(self._generation.get("max_gen_toks", 256))  # lm-eval's default

    @property
    def min_new_tokens(self) -> int:
        return int(self._generation.get("min_new_tokens", 0))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end the generation; none for LongBench."""
        until = self._generation.get("until") or ()
        return (until,) if isinstance(until, str) else tuple(until)

    @property
    def _generation(self) -> dict[str, Any]:
        return self.task.config.generation_kwargs or {}

    @cached_property
    def _samples(self) -> list[Sample]:
        index, count = self.settings.shard
        documents = list(enumerate(self.task.eval_docs))[: self.settings.limit][index::count]
        return [self._sample(number, doc) for number, doc in documents]

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def _sample(self, number: int, doc: dict[str, Any]) -> Sample:
        sample_id = str(doc["_id"]) if "_id" in doc else str(number)
        self._docs[sample_id] = doc
        prompt = self.task.fewshot_context(doc, num_fewshot=self.task.config.num_fewshot or 0)
        if "dataset" in doc and "length" in doc:  # ours
            details = {"length": doc["length"], "length_bucket": length_bucket(doc["length"])}
            answers, classes = tuple(doc["answers"]), tuple(doc["all_classes"] or ())
            return Sample(sample_id, prompt, answers, classes, details, place_of(doc["context"], prompt))
        target = self.task.doc_to_target(doc)
        return Sample(sample_id, prompt, tuple(map(str, target)) if isinstance(target, list) else (str(target),))

    def score(self, prediction: str, sample: Sample) -> float:
        from lm_eval.api.instance import Instance

        for stop in self.stop_strings:  # as lm-eval does: the stop itself does not belong to the answer
            prediction = prediction.split(stop)[0]
        doc = self._docs[sample.sample_id]
        instance = Instance(request_type="generate_until", doc=doc, arguments=(sample.prompt, {}), idx=0)
        instance.resps = [prediction]
        self.task._instances = [instance]
        self.task.apply_filters()
        metrics = self.task.process_results(doc, [next(iter(instance.filtered_resps.values()))])
        value = next(iter(metrics.values()))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"task={self.name} scores a whole corpus, not a sample; run it with python -m lazybench.lm_eval"
            )
        return float(value)


def longbench_task(name: str, settings: DataSettings) -> LmEvalTask:
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
    return LmEvalTask(
        name=name,
        category=CATEGORIES[name],
        task=_load(f"lazybench_{name}", metadata, include_path=str(TASK_FILES), include_defaults=False),
        settings=settings,
        fingerprint=documents.fingerprint,
        source=documents.source,
        chat_format=dataset not in PLAIN_PROMPT,
        stop_at_newline=dataset == "samsum",
    )


def any_lm_eval_task(name: str, settings: DataSettings) -> LmEvalTask:
    """A generation task that lm-eval ships, by lm-eval's name.

    Raises:
        UserError: lm-eval has no such task, it does not generate, or its data cannot be loaded.
    """
    own = settings.parameters.get("include_path")  # a folder of the user's own task files, beside lm-eval's
    task = _load(name, {}, include_defaults=True, include_path=own)
    if task.OUTPUT_TYPE != "generate_until":
        raise UserError(f"task=lm_eval/{name} asks for {task.OUTPUT_TYPE}; only generation tasks can be timed")
    digest = hashlib.sha256()
    for doc in task.eval_docs:
        digest.update(json.dumps(doc, sort_keys=True, default=str).encode())
    source = f"lm-eval {task.config.dataset_path} {task.config.dataset_name or ''}".strip()
    return LmEvalTask(f"lm_eval/{name}", "lm_eval", task, settings, digest.hexdigest(), source)


def _load(name: str, metadata: dict[str, Any], **where: Any) -> ConfigurableTask:
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it reports every default it fills in
    manager = TaskManager(metadata=metadata, **where)
    if name not in manager.all_subtasks:
        raise unknown_name("lm-eval task", name, _close_only(name, manager.all_subtasks))
    try:
        return manager.load(name)["tasks"][name]
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"lm-eval task {name} cannot be loaded ({type(error).__name__}: {reason})") from error


def _close_only(name: str, known: Sequence[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(name, known, n=8, cutoff=0.4)
