"""The way of a sample through every method: its prompt, what each is asked, and its lines of samples.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from lazybench.errors import SampleError, UserError
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
from lazybench.measure.protocol import WarmUp, attempt, measure, order_of_methods
from lazybench.measure.work import shares_of
from lazybench.methods.base import Method
from lazybench.methods.baseline import Baseline
from lazybench.methods.request import Request, Response
from lazybench.models import LoadedModel
from lazybench.run.config import RunConfig
from lazybench.run.progress import Progress
from lazybench.run.record import Record
from lazybench.run.run_folder import RunFolder
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


class Measuring:
    """One run in progress: what every sample needs and does not change.

    Args:
        log: is told every record, after it is on disk and outside every timed stretch.
    """

    def __init__(
        self, config: RunConfig, loaded: LoadedModel, folder: RunFolder, log: Callable[[Record], object] | None = None
    ) -> None:
        self.config = config
        self.loaded = loaded
        self.folder = folder
        self.log = log
        self.repeats = [max(config.repeats, method.repeats) for method in config.methods]  # of each method
        self.proven = {(record.method, record.setting) for record in folder.done.values() if record.error is None}
        self.warm_up = WarmUp(config.methods, config.warmup)

    def measure_all(self, samples: list[tuple[Task, int, Sample]]) -> None:
        with Progress(total=len(samples) * sum(self.repeats)) as self.progress:
            for task, index, sample in samples:
                self._measure_sample(_OneSample(self, task, index, sample))

    def _measure_sample(self, one: _OneSample) -> None:
        """Every method on one sample, in alternating order; only what the folder does not hold yet."""
        for repeat in range(max(self.repeats)):
            due = [method for method, most in zip(self.config.methods, self.repeats, strict=True) if repeat < most]
            for order, method in enumerate(order_of_methods(one.index + repeat, due)):
                blank = one.blank_record(method, repeat, order)
                earlier = self.folder.done.get(blank.key)
                record = earlier or self._attempted(one, blank, method)
                if earlier is None:
                    self.folder.append(record)
                    if self.log is not None:
                        self.log(record)
                self.progress.advance(record, earlier is not None)

    def _attempted(self, one: _OneSample, blank: Record, method: Method) -> Record:
        """The whole record, or where something failed (out of memory, say) the blank one with its error."""
        if isinstance(one.prompt, str):
            return replace(blank, error=one.prompt)
        blank = replace(blank, prompt_tokens=one.prompt.ids.shape[1], truncated_from=one.prompt.truncated_from)
        measured = one.timed if self.config.timing else one.judged
        key = (blank.method, blank.setting)
        # a method that has measured a sample in this folder refuses this sample alone, not the set-up
        record = attempt(lambda: measured(blank, method), proven=key in self.proven)
        if isinstance(record, str):
            return replace(blank, error=record)
        self.proven.add(key)
        return record


class _OneSample:
    """A sample on its way through the methods."""

    def __init__(self, run: Measuring, task: Task, index: int, sample: Sample) -> None:
        self.run, self.task, self.index, self.sample = run, task, index, sample

    @cached_property  # nothing to encode where everything is measured
    def prompt(self) -> Prompt | str:
        return attempt(lambda: encode(self.run.config, self.run.loaded, self.task, self.sample), proven=True)

    @cached_property  # recorded when the first method asks for it, and once
    def reference(self) -> Reference:
        self._show("the baseline's answer, for fidelity")
        return record_reference(Baseline(), self._request(0))

    def timed(self, record: Record, method: Method) -> Record:
        """Under the clock; then a pass for the fidelity."""
        self._show(method.name)
        request = self._request(record.repeat)
        self.run.warm_up(request)
        measured = measure(method, request)
        times = {name: getattr(measured, name) for name in MEASURED}
        record = replace(
            self._with_work(record, measured.response, request), overhead_s=measured.response.overhead_s, **times
        )
        record = self._with_answer(record, measured.response.new_tokens)
        if not self.run.config.fidelity:
            return record
        if method.name == Baseline.name:  # the reference itself: a pass could only find it
            return _with_fidelity(record, EXACT)
        reference = self.reference
        self._show(f"{method.name}, its fidelity")
        return _with_fidelity(record, fidelity(method, request, reference))

    def judged(self, record: Record, method: Method) -> Record:
        """Without a clock: one pass for fidelity and work; one more for the score, where some step disagreed.

        None for the baseline: its reference is its pass.
        """
        request, reference = self._request(record.repeat), self.reference
        self._show(f"{method.name}, its fidelity")
        is_reference = method.name == Baseline.name
        found = Quality(EXACT, reference.response) if is_reference else quality(method, request, reference)
        record = _with_fidelity(self._with_work(record, found.response, request), found.fidelity)
        if not self.run.config.scoring:
            return record
        return self._with_answer(record, free_tokens(method, request, reference, found.fidelity))

    def _request(self, repeat: int) -> Request:
        assert isinstance(self.prompt, Prompt)
        return request_for(self.run.config, self.run.loaded, self.task, self.prompt, self.index, repeat)

    def _show(self, what: str) -> None:
        self.run.progress.show(self.task.name, what)

    def _with_work(self, record: Record, response: Response, request: Request) -> Record:
        work, shares = response.work, shares_of(response.work, request)
        details = dict(self.sample.details)
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

    def _with_answer(self, record: Record, new_tokens: Tensor) -> Record:
        loaded = self.run.loaded
        prediction = str(loaded.tokenizer.decode(new_tokens, skip_special_tokens=True))
        record = replace(record, prediction=prediction, output_tokens=len(new_tokens))
        if not (self.run.config.scoring and loaded.scores_mean_something):
            return record
        try:
            return replace(record, score=self.task.score(loaded.postprocess(prediction), self.sample))
        except UserError as error:
            raise SampleError(f"score: {error}") from error  # of what this one was answered

    def blank_record(self, method: Method, repeat: int, order: int) -> Record:
        return Record(
            model=self.run.loaded.label,
            task=self.task.name,
            category=self.task.category,
            method=method.name,
            params=method.params,
            sample_id=self.sample.sample_id,
            repeat=repeat,
            prompt_tokens=0,
            commit=self.run.folder.commit,
            order=order,
        )


def _with_fidelity(record: Record, judged: Fidelity) -> Record:
    return replace(record, **{f"fidelity_{name}": value for name, value in vars(judged).items()})
