"""A task of the runner around lm-eval's task object: its documents, prompts, limits and scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from lazybench.errors import UserError
from lazybench.tasks.base import DataSettings, Sample, place_of
from lazybench.tasks.documents import load_documents
from lazybench.tasks.lm_eval_requests import load_task, metrics_of_the_library
from lazybench.tasks.prompting import OfficialPrompt
from lazybench.tasks.rows import as_utf8

TASK_FILES = Path(__file__).parent / "longbench"
PLAIN_PROMPT = ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p")  # pred.py: never in a chat format


class LmEvalTask(OfficialPrompt):
    """Any generation task of lm-eval: its own requests, to the letter.

    A sample's score is the first metric of the task's list that it has, after the first of its filters.

    Args:
        task: lm-eval's object.
        requests: one a document, in the data's order.
        source: see ``Task``.
    """

    category = "lm_eval"
    chat_format = False
    max_new_tokens = 0
    source = ""

    def __init__(
        self, name: str, settings: DataSettings, task: ConfigurableTask, requests: Sequence[Instance], source: str = ""
    ) -> None:
        super().__init__(name, settings)
        self.task, self.source = task, source
        generation: dict[str, Any] = dict(normalize_gen_kwargs(requests[0].args[1] or {} if requests else {}))
        self.max_new_tokens = int(generation["max_gen_toks"])
        self.min_new_tokens = int(generation.get("min_new_tokens", 0))
        self.stop_strings = tuple(text for text in generation["until"] if text)  # an empty one stops nothing
        # by the documents' own ids where each has one that no other has, else by their places
        own = [request.doc.get("_id") for request in requests]
        unique = None not in own and len(set(map(str, own))) == len(own)
        self.requests = {str(own[place] if unique else place): request for place, request in enumerate(requests)}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of every document, answers among them, and of what is sent for it: prompt, stops and limits."""
        digest = hashlib.sha256()
        for request in self.requests.values():
            digest.update(as_utf8(f"{self.name} document {request.doc_id}", [*request.args, request.doc]))
        return digest.hexdigest()

    def all_samples(self) -> Iterator[Sample]:
        for sample_id, request in self.requests.items():
            target = self.task.doc_to_target(request.doc)
            answers = tuple(map(str, target if isinstance(target, list) else [target]))
            yield Sample(sample_id, request.args[0], answers)

    def score(self, prediction: str, sample: Sample) -> float:
        text = postprocess_generated_text(prediction, list(self.stop_strings), None)
        answered = replace(self.requests[sample.sample_id], resps=[text], filtered_resps={})
        self.task._instances = [answered]
        with metrics_of_the_library():
            self.task.apply_filters()
            metrics = self.task.process_results(answered.doc, [next(iter(answered.filtered_resps.values()))])
        listed = [name for name in self.task._metric_fn_list if name in metrics]
        # RULER's have a metric for each length, -1 where a document has another one
        named = (name for name in (*listed, *metrics) if not (name.isdigit() and metrics[name] == -1))
        value = metrics.get(next(named, None))
        try:
            return float("a text" if isinstance(value, str) else value)
        except (TypeError, ValueError):  # what the whole corpus's score is made of
            raise UserError(
                f"task={self.name} scores a whole corpus, not a sample; run it with lazybench lm-eval"
            ) from None


class LongBenchTask(LmEvalTask):
    """One of our LongBench task files, over documents that are checked row by row."""

    fingerprint = ""  # sha256 of their file

    def all_samples(self) -> Iterator[Sample]:
        for sample_id, request in self.requests.items():
            doc, prompt = request.doc, request.args[0]
            words = doc["length"]
            details = {} if words is None else {"length": words, "length_bucket": length_bucket(words)}
            answers, classes = tuple(doc["answers"]), tuple(doc["all_classes"] or ())
            yield Sample(sample_id, prompt, answers, classes, details, place_of(doc["context"], prompt))


def length_bucket(words: int) -> str:
    """LongBench-E's three groups, by a sample's ``length`` field (eval.py, ``scorer_e``)."""
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"


def any_lm_eval_task(name: str, settings: DataSettings) -> LmEvalTask:
    """A generation task that lm-eval ships, or one from ``include_path``: a folder of the user's own task files.

    Other parameters are what lm-eval calls metadata: RULER's tasks read ``tokenizer`` and ``max_seq_lengths``.

    Raises:
        UserError: as ``load_task`` does.
    """
    name = name.removeprefix("lm_eval/")
    metadata = {key: value for key, value in settings.parameters.items() if value is not None}
    task, requests = load_task(name, metadata.pop("include_path", None), metadata)
    source = f"lm-eval {task.config.dataset_path} {task.config.dataset_name or ''}".strip()
    return LmEvalTask(f"lm_eval/{name}", settings, task, requests, source)


def longbench_task(name: str, settings: DataSettings) -> LongBenchTask:
    """One of our LongBench task files.

    Raises:
        UserError: as ``load_documents`` does.
    """
    root = None if settings.root is None else str(settings.root)
    documents = load_documents(name, root)
    ours, requests = load_task(f"lazybench_{name}", str(TASK_FILES), {"data_root": root})
    longbench = LongBenchTask(name, settings, ours, requests, documents.source)
    longbench.fingerprint = documents.fingerprint
    longbench.chat_format = name.removesuffix("_e") not in PLAIN_PROMPT
    longbench.stop_at_newline = name.startswith("samsum")
    return longbench
