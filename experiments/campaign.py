"""The campaign: what results/published is made of, measured anew by one commit.

python experiments/campaign.py --forecast                       hours first
python experiments/campaign.py limit=1                          the whole way, one sample of each dataset
python experiments/campaign.py data.root=FOLDER models.qwen_1_5b=FILE.gguf 'parts=[qwen_1_5b_1500]' 'speeds=[2]'
python experiments/campaign.py shards=8 hydra/launcher=slurm    on a cluster (joblib: on this machine)
python experiments/campaign.py --pack results/published         what is there, one file of records a part

campaign.yaml beside this file says what is measured and lists the keys. A run takes the first sample of every dataset
through all its methods, then the second ones. So it can be stopped at any time: the same command goes on, a higher
limit adds samples, and what is there is a table of as many samples for each method.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from lazybench.cli.choices import prepare, run_config
from lazybench.cli.groups import composed
from lazybench.errors import UserError, command, shown, unknown_name
from lazybench.models import ModelSpec
from lazybench.pruning.settings import Count, typed
from lazybench.tasks import DataSettings

SETTINGS = Path(__file__).with_suffix(".yaml")
TYPES: Mapping[str, Any] = {  # of the keys whose values are the user's
    **dict.fromkeys(("parts", "speeds"), tuple[str, ...]),
    **dict.fromkeys(("models", "drafts", "run"), Mapping[str, Any]),
    "methods": tuple[str, ...] | None,
    "limit": Count | None,
    "shards": Count,
    "out": str,
    "rate": float | None,
}


@dataclass(frozen=True)
class Job:
    """One run: a part at one speed."""

    part: str
    speed: float | str
    model: str
    overrides: tuple[str, ...]  # of run.py, but for where it goes and which samples are its own
    methods: int  # the plain model among them
    out: Path

    @property
    def name(self) -> str:
        return f"{self.part} {self.out.name}"


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """campaign.yaml with what the command line says over it.

    Raises:
        UserError: an unknown key, a value of another type.
    """
    settings: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is no KEY=VALUE; the keys stand in {SETTINGS.name}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{key}={text} can't be read ({shown(error)}); quote it as in {SETTINGS.name}") from error
        if key.startswith("hydra/"):
            settings["launcher"] = argument
            continue
        head, _, rest = key.partition(".")
        if head == "part":
            name, _, rest = rest.partition(".")
            node, head = _known(settings["part"], name, "part"), rest.partition(".")[0]
            rest = rest.partition(".")[2]
        else:
            node = settings
        if key in settings:
            settings[key] = value
        elif rest:
            node[head] = {**_known(node, head, "key"), rest: value}  # parts share some of theirs
        else:
            _known(node, head, "key")
            node[head] = value
    for name, hint in TYPES.items():
        typed(hint, settings[name], name)
    for name in settings["parts"]:
        typed(Count | None, _known(settings["part"], name, "part")["limit"], f"part.{name}.limit")
    measured = dict.fromkeys(speed for at_speed in settings["settings"].values() for speed in at_speed)
    for speed in settings["speeds"]:
        if speed not in measured:
            raise unknown_name("speed of the campaign", str(speed), map(str, measured))
    for name, path in settings["models"].items():
        settings["models"][name] = path or os.environ.get(f"LAZYBENCH_{name.upper()}")
    return settings


def _known(node: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in node:
        raise unknown_name(f"{kind} of the campaign", name, node)
    return node[name]


def plan(settings: Mapping[str, Any]) -> tuple[list[Job], dict[str, list[str]]]:
    """The runs in their order, and what is left out: why, and which."""
    jobs: list[Job] = []
    left_out: dict[str, list[str]] = {}
    for speed in settings["speeds"]:
        for name in settings["parts"]:
            part = settings["part"][name]
            model, run = part["model"], {**settings["run"], **part["run"]}
            model_path = settings["models"].get(model, model)
            if model_path is None:
                left_out.setdefault(f"models.{model}=FILE is not given", []).append(name)
                continue
            if run.get("task") == "longbench":
                if settings["data.root"] is None:
                    left_out.setdefault("data.root=FOLDER (or hub) is not given", []).append(name)
                    continue
                run["data.root"] = None if settings["data.root"] == "hub" else settings["data.root"]
            methods = []
            for method in part["methods"]:
                if settings["methods"] and method not in settings["methods"]:
                    continue
                own = {}
                at_speed = _known(settings["settings"], method, "method").get(speed, [])
                at_speed = settings["of_model"].get(model, {}).get(method, {}).get(speed, at_speed)
                if method == "spec_prefill" and at_speed:
                    draft = settings["drafts"].get(model)
                    own["draft"] = settings["models"].get(draft)
                    if own["draft"] is None:
                        why = f"models.{draft}=FILE, its draft, is not given"
                        left_out.setdefault(why, []).append(f"spec_prefill of {name}")
                        continue
                methods += [{"method": method, **setting, **own} for setting in at_speed]
            if not methods:
                continue
            run["methods"] = ["baseline", *methods]
            run["limit"] = settings["limit"] or part["limit"]
            folder = Path(settings["out"]) / name
            label = f"{speed}x" if isinstance(speed, int | float) else speed
            label += f"-{'+'.join(settings['methods'])}" if settings["methods"] else ""
            for key, value, suffix in _each(part.get("each", {})):
                values = {**run, **({key: value} if key else {})}
                texts = [f"model={model_path}", *(f"{key}={text_of(value)}" for key, value in values.items())]
                jobs.append(Job(name, speed, model, tuple(texts), 1 + len(methods), folder / f"{label}{suffix}"))
    return jobs, {why: list(dict.fromkeys(names)) for why, names in left_out.items()}


def _each(several: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str | None, Any, str]]:
    for key, values in several.items():
        yield from ((key, value, f"-{value}") for value in values)
    if not several:
        yield None, None, ""


def text_of(value: Any) -> str:
    """A value as Hydra's command line reads it.

    >>> text_of([{"method": "lazyllm", "draft": "/a b.gguf", "retain": None}])
    "[{method:lazyllm,draft:'/a b.gguf',retain:null}]"
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    return text if text.replace("_", "").replace(".", "").replace("-", "").isalnum() else f"'{text}'"


def forecast(jobs: Sequence[Job], rate: float | None) -> None:
    """Print each part's hours: records times seconds, these from the FLOPs and the bytes that a token moves."""
    import torch

    threads = run_config(composed(prepare(jobs[0].overrides))).threads if jobs else None
    torch.set_num_threads(int(threads or torch.get_num_threads()))
    flops_per_s, bytes_per_s = _speed_of_this_machine()
    flops_per_s = rate * 1e9 if rate else flops_per_s
    print(
        f"at {flops_per_s / 1e9:.0f} GFLOP/s and {bytes_per_s / 1e9:.1f} GB/s on {torch.get_num_threads()} thread(s):"
    )
    total = 0.0
    for job in jobs:
        work = _work(tuple(text for text in job.overrides if not text.startswith("methods=")))
        speed = job.speed if isinstance(job.speed, int | float) else 1.0
        prefill_s, steps_s = work.prefill_flops / flops_per_s, work.moved_bytes / bytes_per_s
        seconds = prefill_s + steps_s + work.passes * (job.methods - 1) * (prefill_s / speed + steps_s)
        records = work.samples * work.repeats * job.methods
        measured = sum(path.read_bytes().count(b"\n") for path in job.out.rglob("samples.jsonl"))
        left = seconds * max(0, records - measured) / max(1, records)
        total += left
        print(
            f"  {job.name:34} {job.methods:3} settings x {work.samples * work.repeats:4} samples"
            f" = {records:5} records x {seconds / max(1, records):6.1f} s = {seconds / 3600:5.1f} h"
            + (f", {measured} are there" if measured else "")
        )
    print(f"  {total / 3600:.1f} hours are left on one such machine; n jobs (shards=n) take an n-th of them")


@dataclass(frozen=True)
class Work:
    """What the plain model does for a part's samples."""

    samples: int
    repeats: int
    passes: int  # over a sample, of every other method: a score takes another one
    prefill_flops: float  # of all samples
    moved_bytes: float  # by all decoding steps


@cache  # the speeds of a part differ in their methods alone
def _work(overrides: tuple[str, ...]) -> Work:
    config = run_config(composed(prepare(overrides)))
    whole, limit = replace(config.data, limit=None), config.data.limit
    flops, weights = _costs(replace(config.model, prompt_limit_tokens=None))
    samples, prefill_flops, moved_bytes = 0, 0.0, 0.0
    for name in config.datasets:
        new_tokens, lengths = _lengths(name, whole)
        for tokens in lengths[:limit]:
            prefill_flops += flops(min(tokens, config.model.prompt_limit_tokens or tokens))
            moved_bytes += (config.max_new_tokens or new_tokens) * weights
            samples += 1
    passes = config.repeats * (2 if config.scoring and not config.timing else 1)
    return Work(samples, config.repeats, passes, prefill_flops, moved_bytes)


@cache
def _costs(spec: ModelSpec) -> tuple[Callable[[int], float], int]:
    """FLOPs of a prefill by its tokens, and bytes of the weights."""
    import torch

    from lazybench.models.fit import weight_bytes
    from lazybench.models.flops import full_prefill_flops
    from lazybench.models.loading import shape_of

    shape = shape_of(spec)
    return cache(partial(full_prefill_flops, shape)), weight_bytes(shape, torch.float32, None)


LENGTHS: dict[str, tuple[int, list[int]]] = {}  # by a task's name and data


def _lengths(name: str, data: DataSettings) -> tuple[int, list[int]]:
    """A task's new tokens, and about how many tokens each of its prompts has: nothing is encoded."""
    from lazybench.tasks import build_task

    key = f"{name} {data}"
    if key not in LENGTHS:
        task = build_task(name, data)
        exact = getattr(task, "prompt_tokens", None)
        LENGTHS[key] = task.max_new_tokens, [exact or len(sample.prompt) // 4 for sample in task.samples()]
    return LENGTHS[key]


def _speed_of_this_machine() -> tuple[float, float]:
    """FLOPs a second of a prefill's products, bytes a second of a decoding step's; each measured for a second."""
    import torch

    tokens, weight = torch.randn(1024, 1024), torch.randn(1024, 4096)
    rates = []
    for rows, amount in ((tokens, 2.0 * 1024 * 1024 * 4096), (tokens[:1], 4.0 * 1024 * 4096)):
        times, started = [], time.perf_counter()
        while time.perf_counter() - started < 1.0:
            before = time.perf_counter()
            rows @ weight
            times.append(time.perf_counter() - before)
        rates.append(amount / sorted(times)[len(times) // 2])
    return rates[0], rates[1]


def measure(jobs: Sequence[Job], settings: Mapping[str, Any]) -> int:
    """Run them one after the other, each in a process of its own; Slurm gets all of them at once.

    Returns:
        0, or the highest exit code; 130 when interrupted.
    """
    launcher, shards = settings.get("launcher"), int(settings["shards"])
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    codes: dict[str, int] = {}

    def wait() -> None:
        while running:
            job, process = running[0]
            codes[job.name] = process.wait()
            running.pop(0)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the run too, which keeps what it has
    try:
        for job in jobs:
            shard = str(settings["shard"])
            if launcher:
                several = ",".join(f"{number}/{shards}" for number in range(shards))
                more = ["-m", launcher, f"shard={several}", f"out={job.out}/${{shard}}"]
            else:
                more = [f"shard={shard}", f"out={job.out if shard == '0/1' else job.out / shard}"]
            print(f"\n{job.name}", flush=True)
            running.append((job, subprocess.Popen([sys.executable, "-m", "lazybench", *more, *job.overrides])))
            if not (launcher and "slurm" in launcher):
                wait()
            if 130 in codes.values():
                return 130
        wait()
    finally:
        for _, process in running:
            process.terminate()
    failed = [f"{name} (exit code {code})" for name, code in codes.items() if code]
    if failed:
        print(f"campaign: {len(failed)} of {len(codes)} runs failed: {'; '.join(failed)}", file=sys.stderr)
    return max(codes.values(), default=0)


@command
def main() -> int:
    """The command line; gives the exit code."""
    given = sys.argv[1:]
    if {"-h", "--help"} & set(given):
        print(f"{__doc__}\n{SETTINGS.read_text(encoding='utf-8').partition('part:')[0]}")
        return 0
    packed = Path(given.pop(given.index("--pack") + 1)) if "--pack" in given[:-1] else None
    settings = read([text for text in given if text not in ("--forecast", "--pack")])
    if packed is not None:
        from lazybench.run.campaign import pack

        for name in settings["parts"]:
            folder = Path(settings["out"]) / name
            if any(folder.rglob("samples.jsonl")):
                print(f"{name}: {pack([folder], packed / f'{name}.parquet', unfinished=True)} records")
        return 0
    jobs, left_out = plan(settings)
    if left_out:
        print("left out: " + "; ".join(f"{', '.join(names)} ({why})" for why, names in left_out.items()), flush=True)
    if "--forecast" in given:
        forecast(jobs, settings["rate"])
        return 0
    return measure(jobs, settings)


if __name__ == "__main__":
    sys.exit(main())
