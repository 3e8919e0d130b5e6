"""Tokens per second of padded batches: ``python -m lazybench.throughput --batch 1,4 task=needle max_new_tokens=32``.

The first prompts of the task, padded on the left to one length, are generated together: by the plain model, and under
the policy of each method that is one. Every row makes the same number of tokens. The times are the median of three.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from lazybench.entry import command
from lazybench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lazybench.config import RunConfig
    from lazybench.pruning.policy import Policy

REPEATS = 3  # timed, after one that is not


@command
def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lazybench.throughput", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="model, task, methods, ... as for run.py")
    parser.add_argument("--batch", default="1,4", metavar="1,4", help="how many prompts are generated together")
    options = parser.parse_args(arguments)
    sizes = [int(part) for part in options.batch.split(",") if part.isdecimal() and int(part)]
    if len(sizes) != len(options.batch.split(",")):
        raise UserError(f"--batch {options.batch} must be whole numbers of at least 1, as in --batch 1,4")
    import pandas

    from lazybench.report.tables import markdown

    print(markdown(pandas.DataFrame(_rows(_config([*options.overrides, f"limit={max(sizes)}"]), sizes))))
    return 0


def seconds_of(model: PreTrainedModel, policy: Policy | None, batch: Any, limits: dict[str, Any]) -> float:
    """The median time of ``generate`` on a batch; ``policy`` None: the plain model's.

    Args:
        batch: ``input_ids`` and ``attention_mask``, (rows, tokens) each.

    Raises:
        UserError: the policy can't take this batch.
    """
    from lazybench.measure.clock import synchronizer
    from lazybench.pruning.engine import Pruned

    wait, times = synchronizer(model.device), []
    for _ in range(1 + REPEATS):
        wait()
        start = time.perf_counter()
        with nullcontext() if policy is None else Pruned(model, policy):
            model.generate(**batch, **limits)  # type: ignore[operator]
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _config(overrides: list[str]) -> RunConfig:
    from lazybench.choices import prepare
    from lazybench.config import run_config
    from lazybench.config_groups import composed, register

    register()  # what ``prepare`` looks names up in
    return run_config(composed(prepare(overrides)))


def _rows(config: RunConfig, sizes: list[int]) -> Iterator[dict[str, str]]:
    """A row for each batch size and method; a method that can't run says why."""
    from lazybench.kept_tokens import policy_of
    from lazybench.models import load_model
    from lazybench.report.names import method_title
    from lazybench.requests import encode
    from lazybench.tasks import build_task

    task, loaded = build_task(config.datasets[0], config.data), load_model(config.model)
    prompts = [encode(config, loaded, task, sample).ids[0].tolist() for sample in task.samples()]
    if len(prompts) < max(sizes):
        raise UserError(f"task={task.name} has {len(prompts)} samples; choose --batch {len(prompts)} or less")
    tokenizer, model = loaded.tokenizer, loaded.model
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
    new = config.max_new_tokens or task.max_new_tokens
    limits = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    for size in sizes:
        batch = tokenizer.pad({"input_ids": prompts[:size]}, return_tensors="pt").to(model.device)
        plain = seconds_of(model, None, batch, limits)
        for method in config.methods:
            row = {"batch": str(size), "method": method_title(method.name, method.label)}
            try:
                policy = policy_of(method, model.config.get_text_config())
                if policy is None and method.name != "baseline":
                    raise UserError("more than a policy: one prompt at a time")
                seconds = plain if policy is None else seconds_of(model, policy, batch, limits)
            except UserError as error:
                yield {**row, "new tokens/s": f"refused: {error}"}
                continue
            rates = {"new tokens/s": size * new, "prompt tokens/s": sum(map(len, prompts[:size])), "over plain": plain}
            yield row | {name: f"{amount / seconds:.2f}" for name, amount in rates.items()}


if __name__ == "__main__":
    sys.exit(main())
