"""The way of a prompt: from a task's sample through every method to a line of samples.jsonl."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import FrameType
from typing import Any

import numpy
import torch

from lazybench.config import RunConfig
from lazybench.errors import UserError
from lazybench.measure.fidelity import Reference, fidelity, record_reference
from lazybench.measure.protocol import measure, order_of_methods
from lazybench.methods.base import Method, Request
from lazybench.methods.baseline import Baseline
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.progress import Progress
from lazybench.store import provenance
from lazybench.store.files import write_atomically
from lazybench.store.record import Record
from lazybench.store.run_folder import RunFolder
from lazybench.tasks import build_task
from lazybench.tasks.base import Sample, Task
from lazybench.tasks.plain_text import PlainText, check_room, exact_prompt
from lazybench.tasks.prompting import encode_prompt, generation_kwargs
from lazybench.tracking import build_tracker

# a draw of its own for every sample and repeat, the same in every process
SEED_STRIDE = 1_000


def run(config: RunConfig) -> int:
    """Measure everything that the configuration asks for and that its folder does not hold yet.

    Returns:
        0 when every sample was measured, 1 when some failed (they are named, and retried on a rerun).

    Raises:
        UserError: bad input, in one line; what was measured before stays.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after the line being written is complete.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    tasks = [build_task(name, config.data) for name in config.datasets]
    samples = _numbered_samples(config, tasks)
    loaded = load_model(_with_room_for(tasks, config))
    for method in config.methods:
        check = getattr(method, "check_model", None)
        if check is not None:
            check(loaded.model)
    facts = provenance.collect(
        model=loaded.provenance,
        tasks={task.name: {"fingerprint": task.fingerprint, "source": task.source} for task in tasks},
        seed=config.seed,
    )
    with _sigterm_interrupts(), RunFolder.open(config.out, config.resolved, facts) as folder:
        tracker = build_tracker(config.tracker)
        tracker.start(config.resolved, facts)
        _Run(config, loaded, folder, tracker).measure_all(samples)
        if config.attention_map:
            _keep_attention_map(config, loaded, tasks[0])
        failed = folder.failed()
        from lazybench.report import write_run_report

        write_run_report(config.out)
        tracker.finish(config.out / "summary.csv", config.out / "tradeoff.png")
        folder.finish()
    print((config.out / "table.md").read_text(encoding="utf-8"))
    print(f"records, table and plot: {config.out}")
    for record in failed:
        print(
            f"failed: {record.task} {record.method} sample {record.sample_id} repeat {record.repeat}: {record.error}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _with_room_for(tasks: list[Task], config: RunConfig) -> ModelSpec:
    """Random weights take prompts of any length; pretrained ones have the window that they were trained on."""
    lengths = [
        task.prompt_tokens + (config.max_new_tokens or task.max_new_tokens)
        for task in tasks
        if isinstance(task, PlainText)
    ]
    if config.model.weights != "random" or not lengths:
        return config.model
    return replace(config.model, window_tokens=max(lengths))


def _numbered_samples(config: RunConfig, tasks: list[Task]) -> list[tuple[Task, int, Sample]]:
    """Every sample of this job with its place in the whole dataset: seeds and orders don't hang on shards."""
    first, jobs = config.data.shard
    return [(task, first + place * jobs, sample) for task in tasks for place, sample in enumerate(task.samples())]


def _keep_attention_map(config: RunConfig, loaded: LoadedModel, task: Task) -> None:
    """attention.npz: ``scores`` of the first prompt, (layers, prompt_tokens) float32; and what was run by name."""
    path = config.out / "attention.npz"
    if path.exists():
        return
    from lazybench.measure.attention_map import attention_map

    scores = attention_map(loaded.model, encode(config, loaded, task, task.samples()[0]))
    content = io.BytesIO()
    numpy.savez_compressed(content, scores=scores.numpy(), model=loaded.label, task=task.name)
    write_atomically(path, content.getvalue())


def encode(config: RunConfig, loaded: LoadedModel, task: Task, sample: Sample) -> torch.Tensor:
    """The prompt's token ids on the model's device.  # (1, prompt_tokens)"""
    if isinstance(task, PlainText):  # timing alone: an exact length, whatever the model's prompt limit
        new_tokens = config.max_new_tokens or task.max_new_tokens
        check_room(task.prompt_tokens, new_tokens, loaded.window_tokens)
        ids = exact_prompt(loaded.tokenizer, sample.prompt, task.prompt_tokens)
    else:
        ids = encode_prompt(loaded, task, sample)
    return ids.to(loaded.model.device)


def request_for(
    config: RunConfig, loaded: LoadedModel, task: Task, prompt_ids: torch.Tensor, index: int, repeat: int = 0
) -> Request:
    """What a method is asked: the prompt, the task's limits and a seed of its own. ``index``: of the sample."""
    limits = generation_kwargs(loaded, task)
    if config.max_new_tokens is not None:
        limits["max_new_tokens"] = config.max_new_tokens
        limits["min_new_tokens"] = min(limits.get("min_new_tokens") or 0, config.max_new_tokens)
    seed = (config.seed * SEED_STRIDE + index) * SEED_STRIDE + repeat
    return Request(loaded.model, loaded.tokenizer, prompt_ids, limits, seed)


class _Run:
    """One run in progress: what every sample needs and does not change."""

    def __init__(self, config: RunConfig, loaded: LoadedModel, folder: RunFolder, tracker: Any) -> None:
        self.config = config
        self.loaded = loaded
        self.folder = folder
        self.tracker = tracker
        self.repeats = {(method.name, method.variant): max(config.repeats, method.repeats) for method in config.methods}
        self.warm = False

    def measure_all(self, samples: list[tuple[Task, int, Sample]]) -> None:
        with Progress(total=len(samples) * sum(self.repeats.values())) as progress:
            for task, index, sample in samples:
                self._measure_sample(task, index, sample, progress)

    def _measure_sample(self, task: Task, index: int, sample: Sample, progress: Progress) -> None:
        """Every method on one sample, in alternating order; only what the folder does not hold yet."""
        prompt_ids = encode(self.config, self.loaded, task, sample)

        @cache  # recorded when the first method asks for it, and once
        def reference() -> Reference:
            return record_reference(Baseline(), request_for(self.config, self.loaded, task, prompt_ids, index))

        for repeat in range(max(self.repeats.values())):
            group: list[Record] = []
            due = [method for method in self.config.methods if repeat < self.repeats[method.name, method.variant]]
            for order, method in enumerate(order_of_methods(index + repeat, due)):
                record = self._blank_record(task, sample, method, repeat, prompt_ids.shape[1], order)
                if record.key in self.folder.done:
                    progress.advance(record)
                    continue
                request = request_for(self.config, self.loaded, task, prompt_ids, index, repeat)
                self._warm_up(request)
                progress.show(task.name, method.name)
                group.append(self._time(record, method, request, task, sample))
                progress.advance(group[-1])
            if self.config.fidelity:
                request = request_for(self.config, self.loaded, task, prompt_ids, index, repeat)
                by_name = {(method.name, method.variant): method for method in due}
                group = [
                    self._agree(record, by_name[record.method, record.variant], request, reference) for record in group
                ]
            for record in group:  # after timing and fidelity: a line is complete or absent
                self.folder.append(record)
                self.tracker.log(record)

    def _time(self, record: Record, method: Method, request: Request, task: Task, sample: Sample) -> Record:
        try:
            measured = measure(method, request)
        except UserError:
            raise
        except Exception as error:  # out of memory, say: this sample failed, the run goes on
            return replace(record, error=_failure(error))
        response = measured.response
        prediction = str(self.loaded.tokenizer.decode(response.new_tokens, skip_special_tokens=True))
        score = None
        if self.config.scoring and self.loaded.scores_mean_something:
            score = task.score(self.loaded.postprocess(prediction), sample)
        return replace(
            record,
            output_tokens=len(response.new_tokens),
            ttft_s=measured.ttft_s,
            generation_s=measured.generation_s,
            decode_step_s=measured.decode_step_s,
            overhead_s=response.overhead_s,
            score=score,
            prediction=prediction,
            prompt_tokens_computed=response.prompt_tokens_computed,
            prompt_tokens_computed_by_stage=response.prompt_tokens_computed_by_stage,
            prompt_tokens_computed_by_step=response.prompt_tokens_computed_by_step,
            flops_ratio=response.ideal_ttft_speedup,
            peak_memory_bytes=measured.peak_memory_bytes,
            details={**sample.details, **response.details} or None,
        )

    def _agree(self, record: Record, method: Method, request: Request, reference: Callable[[], Reference]) -> Record:
        """The record with its fidelity; a method that failed has none."""
        if record.error is not None:
            return record
        if record.method == Baseline.name:  # the reference itself: another pass could only find it
            return replace(record, fidelity_top1=1.0, fidelity_kl=0.0)
        try:
            top1, divergence = fidelity(method, request, reference())
        except UserError:
            raise
        except Exception as error:
            return replace(record, error=f"fidelity: {_failure(error)}")
        return replace(record, fidelity_top1=top1, fidelity_kl=divergence)

    def _warm_up(self, request: Request) -> None:
        """Untimed runs of every method on the first prompt that is measured: kernels, allocator, caches."""
        if self.warm:
            return
        self.warm = True
        short = replace(request, generate_kwargs={**request.generate_kwargs, "max_new_tokens": 2, "min_new_tokens": 2})
        for _ in range(self.config.warmup):
            for method in self.config.methods:
                try:
                    method.run(short)
                except UserError:
                    raise
                except Exception as error:  # its measured run will fail too, and be recorded as failed
                    _failure(error)

    def _blank_record(
        self, task: Task, sample: Sample, method: Method, repeat: int, prompt_tokens: int, order: int
    ) -> Record:
        return Record(
            model=self.loaded.label,
            task=task.name,
            category=task.category,
            method=method.name,
            variant=method.variant,
            sample_id=sample.sample_id,
            repeat=repeat,
            prompt_tokens=prompt_tokens,
            order=order,
        )


def _failure(error: Exception) -> str:
    """One line on what went wrong; what it held on the device is free for the next method."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """A cluster ends a job with SIGTERM: treat it as Ctrl-C, so that the folder is left in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
