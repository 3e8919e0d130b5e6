"""The way of a sample through every method: its prompt, what each is asked, and its lines of samples.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from torch import Tensor

from lazybench.measure.fidelity import (
    EXACT,
    Fidelity,
    Quality,
    Reference,
    fidelity,
    free_tokens,
    quality,
    record_reference,
)
from lazybench.measure.launches import launches_and_waits
from lazybench.measure.protocol import Measurement, WarmUp, attempt, measure, order_of_methods
from lazybench.measure.reference_store import ReferenceStore
from lazybench.measure.work import shares_of
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.request import Request, Response
from lazybench.models import LoadedModel
from lazybench.run.config import RunConfig
from lazybench.run.progress import Progress
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
from lazybench.run.tracking import Tracker
from lazybench.tasks.base import Prompt, Sample, Task
from lazybench.tasks.prompting import generation_kwargs

# a draw of its own for every sample and repeat, the same in every process
SEED_STRIDE = 1_000
# a record's fields that a measurement and a method's work call the same
MEASURED = ("ttft_s", "generation_s", "decode_step_s", "peak_memory_bytes", "added_memory_bytes")
HELD = ("kv_bytes_prefill", "kv_bytes_end", "aux_bytes_prefill", "aux_bytes_end", "tokens_of_layer_runs", "other_flops")


def encode(config: RunConfig, loaded: LoadedModel, task: Task, sample: Sample) -> Prompt:
    """The sample's prompt, its ids on the model's device.

    Raises:
        UserError: prompt and generation do not fit the model's window.
    """
    prompt = task.encode(loaded, sample, config.max_new_tokens or task.max_new_tokens)
    return replace(prompt, ids=prompt.ids.to(loaded.model.device))


def request_for(
    config: RunConfig, loaded: LoadedModel, task: Task, prompt: Prompt, index: int, repeat: int = 0
) -> Request:
    """What a method is asked: the prompt, the task's limits and a seed of its own. ``index``: of the sample."""
    limits = generation_kwargs(loaded, task)
    if config.max_new_tokens is not None:
        limits["max_new_tokens"] = config.max_new_tokens
        limits["min_new_tokens"] = min(limits.get("min_new_tokens") or 0, config.max_new_tokens)
    seed = (config.seed * SEED_STRIDE + index) * SEED_STRIDE + repeat
    return Request(
        loaded.model,
        loaded.tokenizer,
        prompt.ids,
        limits,
        seed,
        template=prompt.template,
        context=prompt.context,
        engine=loaded.engine,
    )


def reference_store(config: RunConfig, loaded: LoadedModel) -> ReferenceStore:
    """Where this model's plain answers are kept, for every run and job that shares the folder."""
    known = json.dumps(loaded.provenance, sort_keys=True, default=str)
    return ReferenceStore(config.references or config.out / "references", known, Baseline())


class Measuring:
    """One run in progress: what every sample needs and does not change."""

    def __init__(self, config: RunConfig, loaded: LoadedModel, folder: RunFolder, tracker: Tracker) -> None:
        self.config = config
        self.loaded = loaded
        self.folder = folder
        self.tracker = tracker
        self.repeats = [max(config.repeats, method.repeats) for method in config.methods]  # of each method
        self.proven = {(record.method, record.setting) for record in folder.done.values() if record.error is None}
        self.warm_up = WarmUp(config.methods, config.warmup)
        self.store = reference_store(config, loaded) if config.references or not config.timing else None

    def measure_all(self, samples: list[tuple[Task, int, Sample]]) -> None:
        with Progress(total=len(samples) * sum(self.repeats)) as progress:
            for task, index, sample in samples:
                self._measure_sample(task, index, sample, progress)

    def _measure_sample(self, task: Task, index: int, sample: Sample, progress: Progress) -> None:
        """Every method on one sample, in alternating order; only what the folder does not hold yet.

        Times are written at once. Fidelity, which may take as long again, follows in a line that replaces the first.
        """

        @cache  # nothing to encode where everything is measured
        def prompt() -> Prompt | str:
            return attempt(lambda: encode(self.config, self.loaded, task, sample), proven=True)

        def request(repeat: int) -> Request:
            encoded = prompt()
            assert isinstance(encoded, Prompt)
            return request_for(self.config, self.loaded, task, encoded, index, repeat)

        @cache  # recorded when the first method asks for it, and once
        def reference() -> Reference:
            if self.store is None:
                return record_reference(Baseline(), request(0))
            names = {"task": task.name, "data_fingerprint": task.fingerprint, "sample_id": sample.sample_id}
            return self.store.get(request(0), **names)

        for repeat in range(max(self.repeats)):
            due = [method for method, most in zip(self.config.methods, self.repeats, strict=True) if repeat < most]
            group: list[tuple[Method, Record]] = []
            for order, method in enumerate(order_of_methods(index + repeat, due)):
                blank = self._blank_record(task, sample, method, repeat, order)
                record = self.folder.done.get(blank.key)
                if record is None:
                    progress.show(task.name, method.name)
                    encoded = prompt()
                    if isinstance(encoded, str):
                        record = replace(blank, error=encoded)
                    else:
                        size = encoded.ids.shape[1]
                        blank = replace(blank, prompt_tokens=size, truncated_from=encoded.truncated_from)
                        if self.config.timing:
                            record = self._time(blank, method, request(repeat), task, sample)
                        else:
                            record = self._judge(blank, method, request(repeat), reference, task, sample)
                    if record.error is None:
                        self.proven.add((record.method, record.setting))
                    self.folder.append(record)
                    self._log(record)
                group.append((method, record))
                progress.advance(record)
            for method, record in group:
                if self._lacks_fidelity(record):
                    completed = _judged(record, method, request(repeat), reference)
                    self.folder.complete(completed)
                    self._log(completed)

    def _log(self, record: Record) -> None:
        if not self._lacks_fidelity(record):
            self.tracker.log(record)

    def _lacks_fidelity(self, record: Record) -> bool:
        return self.config.fidelity and record.error is None and record.fidelity_top1 is None

    def _time(self, record: Record, method: Method, request: Request, task: Task, sample: Sample) -> Record:
        self.warm_up(request)
        measured = attempt(lambda: measure(method, request), proven=self._proven(method))
        if not isinstance(measured, Measurement):  # out of memory, say: this sample failed, the run goes on
            return replace(record, error=measured)
        record = replace(
            self._with_work(record, measured.response, request, sample),
            overhead_s=measured.response.overhead_s,
            **{name: getattr(measured, name) for name in MEASURED},
        )
        if self.config.launches and not record.repeat:
            counted = attempt(lambda: launches_and_waits(method, request), proven=True)
            counts = counted if isinstance(counted, dict) else {"launches": counted}
            record = replace(record, details={**(record.details or {}), **counts})
        record = self._with_answer(record, measured.response.new_tokens, task, sample)
        if self.config.fidelity and method.name == Baseline.name:  # the reference itself: a pass could only find it
            record = _with_fidelity(record, EXACT)
        return record

    def _judge(
        self,
        record: Record,
        method: Method,
        request: Request,
        reference: Callable[[], Reference],
        task: Task,
        sample: Sample,
    ) -> Record:
        """Without a clock: one pass for fidelity and work; one more for the score, where some step disagreed.

        None for the baseline where its reference was recorded just now.
        """

        plain = attempt(reference)
        if not isinstance(plain, Reference):
            return replace(record, error=plain)

        def judge() -> Quality:
            own = plain.response if method.name == Baseline.name else None
            return quality(method, request, plain) if own is None else Quality(EXACT, own)

        judged = attempt(judge, proven=self._proven(method))
        if not isinstance(judged, Quality):
            return replace(record, error=judged)
        record = _with_fidelity(self._with_work(record, judged.response, request, sample), judged.fidelity)
        if not self.config.scoring:
            return record
        tokens = attempt(lambda: free_tokens(method, request, plain, judged.fidelity), proven=True)
        if isinstance(tokens, str):
            return replace(record, error=tokens)
        return self._with_answer(record, tokens, task, sample)

    def _with_work(self, record: Record, response: Response, request: Request, sample: Sample) -> Record:
        work, shares = response.work, shares_of(response.work, request)
        details = {**sample.details, **response.details}
        if work.revived_tokens_per_step is not None:
            details["revived_tokens_per_step"] = work.revived_tokens_per_step
        return replace(
            record,
            output_tokens=len(response.new_tokens),
            prompt_tokens_computed=shares.prompt_tokens_computed,
            prompt_tokens_computed_by_stage=shares.by_stage,
            prompt_tokens_computed_by_step=shares.by_step,
            mlp_tokens_of_layer_runs=work.mlp_tokens_of_layer_runs or (),
            flops_ratio=shares.flops_ratio,
            details=details or None,
            **{name: getattr(work, name) for name in HELD},
        )

    def _with_answer(self, record: Record, new_tokens: Tensor, task: Task, sample: Sample) -> Record:
        prediction = str(self.loaded.tokenizer.decode(new_tokens, skip_special_tokens=True))
        record = replace(record, prediction=prediction, output_tokens=len(new_tokens))
        if self.config.scoring and self.loaded.scores_mean_something:
            score = attempt(lambda: task.score(self.loaded.postprocess(prediction), sample), proven=True)
            record = replace(record, **({"error": f"score: {score}"} if isinstance(score, str) else {"score": score}))
        return record

    def _proven(self, method: Method) -> bool:
        """It has measured a sample in this folder: what it refuses now is one sample, not the set-up."""
        return (method.name, json.dumps(method.params, sort_keys=True)) in self.proven

    def _blank_record(self, task: Task, sample: Sample, method: Method, repeat: int, order: int) -> Record:
        return Record(
            model=self.loaded.label,
            task=task.name,
            category=task.category,
            method=method.name,
            params=method.params,
            sample_id=sample.sample_id,
            repeat=repeat,
            prompt_tokens=0,
            commit=self.folder.commit,
            order=order,
        )


def _judged(record: Record, method: Method, request: Request, reference: Callable[[], Reference]) -> Record:
    judged = attempt(lambda: fidelity(method, request, reference()), proven=True)
    return replace(record, error=f"fidelity: {judged}") if isinstance(judged, str) else _with_fidelity(record, judged)


def _with_fidelity(record: Record, judged: Fidelity) -> Record:
    names = ("top1", "kl", "first_top1", "first_kl")
    return replace(record, **{f"fidelity_{name}": getattr(judged, name) for name in names})
