"""lm-eval both ways: its command line with our engine as a model, and its tasks in our runner."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, python
from longbench_rows import row, write
from omegaconf import OmegaConf
from test_models_checkpoints import changed

from lazybench.errors import UserError
from lazybench.integrations.lm_eval import main as lm_eval_main
from lazybench.integrations.lm_eval_model import LazyLLMModel
from lazybench.pruning.engine import LazyLLM
from lazybench.pruning.schedule import PruningSchedule
from lazybench.tasks import CATEGORIES
from lazybench.tasks.catalogue import ENGLISH, TASKS, asks, samples_of
from lazybench.tasks.lm_eval_task import TASK_FILES

LM_EVAL = ("-m", "lazybench", "lm-eval", "--model", "lazyllm", "--device", "cpu")


def documents(folder: Path) -> Path:
    from pydoc_data.topics import topics

    for dataset in ("lcc", "trec", "samsum"):
        texts = [topics["assignment"][number * 300 : number * 700 + 200] for number in range(3)]
        rows = [row(number, context=text, all_classes=["x = 1", "y"]) for number, text in enumerate(texts)]
        write(folder, dataset, rows)
    return folder


def test_the_command_line_runs_our_tasks_with_our_engine_in_batches(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = python(
        *LM_EVAL,
        *("--batch_size", "2", "--limit", "3"),
        *("--model_args", f"pretrained={tiny_checkpoint},pruning=paper,dtype=float32"),
        *("--tasks", "lazybench_lcc,lazybench_trec,lazybench_samsum", "--gen_kwargs", "max_gen_toks=6"),
        *("--metadata", json.dumps({"data_root": str(documents(tmp_path))})),
        *("--output_path", str(tmp_path / "out"), "--log_samples"),
    )
    assert done.returncode == 0, done.stderr
    assert "lazybench_lcc" in done.stdout
    (result,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(result.read_text())["results"]
    assert set(results) == {"lazybench_lcc", "lazybench_trec", "lazybench_samsum"}
    assert all(0 <= values["score,none"] <= 1 for values in results.values())
    (samples,) = (tmp_path / "out").rglob("samples_lazybench_lcc_*.jsonl")
    logged = [json.loads(line) for line in samples.read_text().splitlines()]
    assert sorted(line["doc"]["_id"] for line in logged) == ["id0", "id1", "id2"]
    assert all(line["arguments"]["gen_args_0"]["arg_0"].endswith("Next line of code:\n") for line in logged)


@pytest.mark.parametrize(
    ("task", "pruning", "told"),
    [
        ("lazybench_lcc", "papr", "did you mean paper"),
        pytest.param("lazybench_qaspr", "paper", "lazybench: Tasks not found: lazybench_qaspr", marks=pytest.mark.slow),
    ],
)
def test_a_bad_argument_is_one_line(task: str, pruning: str, told: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = python(
        *LM_EVAL,
        *("--tasks", task),
        *("--model_args", f"pretrained={tiny_checkpoint},pruning={pruning}"),
        *("--metadata", json.dumps({"data_root": str(documents(tmp_path))})),
    )
    assert done.returncode == 2
    assert told in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Any:
    return LazyLLMModel(str(tiny_checkpoint), dtype="float32", device="cpu", batch_size=2)


def test_the_model_generates_as_the_engine_does_alone(model: Any) -> None:
    from lm_eval.api.instance import Instance

    prompts = [
        "Objects are Python's abstraction for data.",
        "Every object has an identity, a type and a value, always.",
    ]
    limits = {"max_gen_toks": 8, "until": [], "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, limits), index) for index, prompt in enumerate(prompts)]
    batched = model.generate_until(requests, disable_tqdm=True)
    for prompt, text in zip(prompts, batched, strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt").input_ids
        with LazyLLM(model.model, PruningSchedule.paper(model.model.config.num_hidden_layers)) as lazy:
            out = model.model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=1)
        assert lazy.trace.steps[0].computed[-1] < ids.shape[1]
        assert text == model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_checkpoint_that_lacks_weights_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(tiny_checkpoint, tmp_path / "torn", "model.safetensors", {"model.norm.weight": None})
    with pytest.raises(UserError, match=r"lacks 1 weight \(model\.norm\.weight\)"):
        LazyLLMModel(str(folder), dtype="float32", device="cpu")


def test_long_prompts_are_cut_in_the_middle(model: Any) -> None:
    ids, mask = model.tok_batch_encode(["START " + "middle " * 200 + "END"], left_truncate_len=40)
    text = model.tokenizer.decode(ids[0])
    assert ids.shape[1] <= 40
    assert text.startswith("START")
    assert text.endswith("END")
    assert mask.all()


@pytest.mark.parametrize("kind", ["loglikelihood", "loglikelihood_rolling"])
def test_loglikelihood_is_refused(kind: str, model: Any) -> None:
    with pytest.raises(UserError, match="or --model hf"):
        getattr(model, kind)([])


def test_every_dataset_is_a_task() -> None:
    loaded = {path.stem: OmegaConf.load(path) for path in (ROOT / "conf" / "task").glob("*.yaml")}
    files = {name: node.get("task", node) for name, node in loaded.items()}
    for name, config in files.items():
        assert set(config) == {"name", "datasets", "parameters"}
        assert config.name == name
    tasks = TASKS | {name: tuple(config.datasets) for name, config in files.items()}
    assert set(CATEGORIES) <= set(tasks)
    for name, datasets in tasks.items():
        lengths = {dataset for dataset in datasets if dataset.startswith("plain_text_")}
        assert set(datasets) - lengths <= set(CATEGORIES)
        assert (name in ("plain_text", "plain_text_lengths")) == bool(lengths)
        assert (name in CATEGORIES) == (datasets == (name,))
    assert [len(names) for names in ENGLISH.values()] == [3, 3, 3, 3, 2, 2]
    assert (len(tasks["longbench"]), len(tasks["longbench_zh"]), len(tasks["longbench_e"])) == (16, 5, 13)
    assert CATEGORIES["qasper_e"] == "single_doc_qa_e"
    assert sum(map(samples_of, tasks["longbench"])) == 3750  # the paper's count
    assert all(asks(dataset) for dataset in (*tasks["longbench"], *tasks["longbench_zh"], *tasks["longbench_e"]))


@pytest.mark.parametrize(
    ("given", "added"),
    [(["--tasks=lazybench_qasper"], True), (["-t", "x"], True), (["--tasks", "x", "--include_path=own"], False)],
)
def test_lm_evals_command_line_knows_our_tasks(given: list[str], added: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(sys, "argv", ["lm_eval", *given])
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: seen.extend(sys.argv[1:]))
    assert lm_eval_main() == 0
    assert seen[: len(given)] == given
    assert seen[len(given) :] == (["--include_path", str(TASK_FILES)] if added else [])
