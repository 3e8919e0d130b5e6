"""LongBench v2: prompt, truncation and answer extraction stated once more, and the hub's files of all benchmarks."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import longbench_rows
import pytest
from conftest import python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from longbench_rows import tokenizer_of, write

from lazybench.models.spec import LoadedModel, ModelSpec
from lazybench.tasks import DataSettings, build_task
from lazybench.tasks.longbench_v2 import FILE, extract_answer, joined_halves

# prompts/0shot.txt
TEMPLATE = (
    "Please read the following text and answer the question below.\n\n<text>\n$DOC$\n</text>\n\n"
    "What is the correct answer to this question: $Q$\nChoices:\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\n\n"
    'Format your response as follows: "The correct answer is (insert answer here)".'
)


def row(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "_id": f"id{number}",
        "domain": f"Domain {number % 6}",
        "sub_domain": "Any",
        "difficulty": ("easy", "hard")[number % 2],
        "length": ("short", "medium", "long")[number % 3],
        "question": f" What is {{number}} {number}?\n",
        **{f"choice_{letter}": f" Choice {letter} {{of}} {number} " for letter in "ABCD"},
        "answer": "ABCD"[number % 4],
        "context": f"\nSome {{context}} of {number}. " * (40 + number),
        **changed,
    }


def official_prompt(entry: dict[str, Any]) -> str:
    """pred.py's replacements."""
    filled = TEMPLATE.replace("$DOC$", entry["context"].strip()).replace("$Q$", entry["question"].strip())
    for letter in "ABCD":
        filled = filled.replace(f"$C_{letter}$", entry[f"choice_{letter}"].strip())
    return filled


def test_samples_are_the_official_prompts_with_what_they_are_judged_by(tmp_path: Path) -> None:
    rows = [row(number) for number in range(14)]
    root = write(tmp_path, "longbench_v2", rows)
    task = build_task("longbench_v2", DataSettings(root=root))
    assert [sample.prompt for sample in task.samples()] == [official_prompt(entry) for entry in rows]
    for sample, entry in zip(task.samples(), rows, strict=True):
        assert (sample.sample_id, sample.answers) == (entry["_id"], (entry["answer"],))
        assert sample.details == {
            "difficulty": entry["difficulty"],
            "length_bucket": entry["length"],
            "domain": entry["domain"],
            "sub_domain": "Any",
        }
        assert task.score(f"The correct answer is ({entry['answer']})", sample) == 1.0
        assert task.score(f"({entry['answer']})", sample) == 0.0
    assert (task.max_new_tokens, task.chat_format, task.source) == (128, True, f"file {FILE.name}")
    assert re.fullmatch("[0-9a-f]{64}", task.fingerprint)


@given(st.integers(0, 30), st.integers(2, 400))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_middle_is_cut_before_decoding(tiny_checkpoint: Path, number: int, limit: int) -> None:
    tokenizer = tokenizer_of(tiny_checkpoint)
    prompt = official_prompt(row(number))
    ids = tokenizer.encode(prompt)
    if len(ids) > limit:
        ids = ids[: limit // 2] + ids[-limit // 2 :]
    assert "".join(joined_halves(tokenizer, prompt, limit)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_prompt_fits_the_window_with_its_generation(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tiny_checkpoint)
    spec = ModelSpec(name="tiny", path=tiny_checkpoint)
    loaded = LoadedModel(spec, None, tokenizer, 512, lambda text: f"<user>{text}<bot>", str, {})  # type: ignore[arg-type]
    task = build_task("longbench_v2", DataSettings(root=write(tmp_path, "longbench_v2", [row(9), row(1)])))
    for sample in task.samples():
        prompt = task.encode(loaded, sample, task.max_new_tokens)
        ids = prompt.ids[0]
        assert 350 < len(ids) <= 512 - 128
        text = tokenizer.decode(ids)
        assert text.startswith("<user>Please read the following text")
        assert text.endswith('"The correct answer is (insert answer here)".<bot>')
        context = tokenizer.decode(ids[prompt.context])
        assert context.startswith("Some {context} of")
        assert "What is the correct answer" not in context
        assert prompt.truncated_from is not None


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The correct answer is (C).", "C"),
        ("**The correct answer is** (*B*)", "B"),
        ("The correct answer is D because", "D"),
        ("The correct answer is A. The correct answer is (B)", "B"),
        ("Is it C? E. The correct answer is **A", "A"),
        ("the correct answer is (A)", None),
        ("The correct answer is (E)", None),
        ("The correct answer is  A", None),
        ("The answer is (A)", None),
        ("", None),
    ],
)
def test_answers_are_extracted_as_officially(response: str, letter: str | None) -> None:
    assert extract_answer(response) == letter


def test_the_hubs_files_are_read_as_they_are(tmp_path: Path) -> None:
    """A hub's cache as a download leaves it, read in a process without a network."""
    from lazybench.tasks.documents import DataFile, archive

    def place(file: DataFile) -> Path:
        repository = tmp_path / "hub" / f"datasets--{file.hub_id.replace('/', '--')}"
        path = repository / "snapshots" / file.revision / file.hub_name
        path.parent.mkdir(parents=True)
        return path

    place(FILE).write_text(json.dumps([row(0), row(1)]))
    with zipfile.ZipFile(place(archive("qasper")), "w") as zipped:
        rows = [longbench_rows.row(0), longbench_rows.row(1)]
        zipped.write(write(tmp_path, "qasper", rows) / "qasper.jsonl", "data/qasper.jsonl")
    own = build_task("qasper", DataSettings(root=tmp_path))
    program = (
        "import json, sys; from lazybench.tasks import *\n"
        "for name in sys.argv[1:]:\n"
        "    task = build_task(name, DataSettings(limit=40))\n"
        "    print(json.dumps([task.source, [[s.prompt, s.answers] for s in task.samples()], task.fingerprint]))"
    )
    done = python("-c", program, "longbench_v2", "qasper", HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (source, samples, _), (source_1, *qasper) = [json.loads(line) for line in done.stdout.splitlines()]
    assert source.startswith(f"hub {FILE.hub_id}@")
    assert source_1.startswith("hub zai-org/LongBench@")
    assert qasper == [[[sample.prompt, [*sample.answers]] for sample in own.samples()], own.fingerprint]
    assert [prompt for prompt, _ in samples] == [official_prompt(row(0)), official_prompt(row(1))]
