"""One run: from a configuration to a folder of records, and what its caller writes of them."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType

import numpy
import torch

from lazybench.measure.protocol import attempt
from lazybench.methods.running import probe_layers
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.flops import layer_cost
from lazybench.run import provenance
from lazybench.run.config import RunConfig
from lazybench.run.files import write_atomically
from lazybench.run.measuring import Measuring, encode
from lazybench.run.run_folder import RunFolder
from lazybench.run.tracking import WeightsAndBiases
from lazybench.tasks import build_task
from lazybench.tasks.base import Sample, Task
from lazybench.tasks.plain_text import PlainText


def run(config: RunConfig, write_report: Callable[[Path], object], show: bool = True) -> int:
    """Measure everything that the configuration asks for and that its folder does not hold yet.

    Args:
        write_report: writes summary.csv, table.md, tradeoff.png and the page into the folder, from its records. It runs
            before the marker of the end: a crash in it is repaired by the same command.
        show: print the table; a sweep has one of all its runs.

    Returns:
        0 when every sample was measured, 1 when some failed (they are named, and retried on a rerun).

    Raises:
        UserError: bad input, in one line; what was measured before stays.
        KeyboardInterrupt: on Ctrl-C and SIGTERM; what was measured stays.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    tasks = [build_task(name, config.data) for name in config.datasets]
    samples = _numbered_samples(config, tasks)
    if not samples:
        shard = "/".join(str(number) for number in config.data.shard)
        print(f"shard={shard} has no sample to measure: take fewer shards, or a higher limit", file=sys.stderr)
    loaded = load_model(_with_room_for(tasks, config))
    if config.engine == "vllm":
        from lazybench.run.vllm_engine import on_vllm

        loaded = on_vllm(config, loaded)
    for method in config.methods:
        method.prepare(loaded.model)
    for task in tasks:  # what fits no window, or scores no sample, is refused before anything is measured
        for sample in task.samples()[:1]:
            attempt(partial(encode, config, loaded, task, sample))
            if config.scoring and loaded.scores_mean_something:
                attempt(partial(task.score, "".join(sample.answers[:1]), sample))
    facts = provenance.collect(
        model=loaded.provenance,
        tasks={task.name: {"fingerprint": task.fingerprint, "source": task.source} for task in tasks},
        seed=config.seed,
        plugins=config.plugins,
    )
    facts["layer_cost"] = asdict(layer_cost(loaded.model.config))  # FLOPs ratios can be computed again from it
    with sigterm_interrupts(), RunFolder.open(config.out, dict(config.resolved), facts) as folder:
        tracker = WeightsAndBiases(dict(config.resolved), facts) if config.tracker == "wandb" else None
        Measuring(config, loaded, folder, tracker.log if tracker else None).measure_all(samples)
        failed = folder.failed()
        without = {(record.task, record.sample_id) for record in failed}
        sound = [entry for entry in samples if (entry[0].name, entry[2].sample_id) not in without]
        if config.attention_map and sound:
            _keep_attention_map(config, loaded, *sound[0])
        write_report(config.out)
        if tracker is not None:
            tracker.finish(config.out / "summary.csv", config.out / "tradeoff.png")
        folder.finish()
    if show:
        print((config.out / "table.md").read_text(encoding="utf-8"))
    print(f"the page: {config.out / 'index.html'} (records, table and plot are beside it)")
    for record in failed:
        print(
            f"failed: {record.task} {record.method} sample {record.sample_id} repeat {record.repeat}: {record.error}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _with_room_for(tasks: list[Task], config: RunConfig) -> ModelSpec:
    """Random weights take prompts of any length; pretrained ones have the window that they were trained on."""
    exact = [task for task in tasks if isinstance(task, PlainText)]
    lengths = [task.prompt_tokens + (config.max_new_tokens or task.max_new_tokens) for task in exact]
    if config.model.weights != "random" or not lengths:
        return config.model
    return replace(config.model, window_tokens=max(lengths))


def _numbered_samples(config: RunConfig, tasks: list[Task]) -> list[tuple[Task, int, Sample]]:
    """Every sample of this job with its place in the whole dataset: seeds and orders do not depend on the shards.

    The first one of every dataset, then the second ones: a run that is stopped has as many of each.
    """
    first, jobs = config.data.shard
    found = [(task, first + place * jobs, sample) for task in tasks for place, sample in enumerate(task.samples())]
    return sorted(found, key=lambda entry: entry[1])


def _keep_attention_map(config: RunConfig, loaded: LoadedModel, task: Task, _: int, sample: Sample) -> None:
    """attention.npz: ``scores`` of the sample's prompt, (layers, prompt_tokens) float32; and what was run by name."""
    path = config.out / "attention.npz"
    if path.exists():
        return
    layers = loaded.model.config.get_text_config().num_hidden_layers
    prompt = encode(config, loaded, task, sample).ids
    scores = probe_layers(loaded.model, prompt, range(layers))[0].float().cpu()
    content = io.BytesIO()
    numpy.savez_compressed(content, scores=scores.numpy(), model=loaded.label, task=task.name)
    write_atomically(path, content.getvalue())


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Inside, SIGTERM, with which a cluster ends a job, is Ctrl-C: the folder is left in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
