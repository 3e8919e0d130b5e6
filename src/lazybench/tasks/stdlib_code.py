"""LongBench's LCC form over the sources of the Python standard library: complete the next line of code.

Not LongBench: the prompt's template, the generation length and the metric are lcc's, the code is what the
running Python brings along, so a score here compares with other scores here only.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from lazybench.errors import UserError
from lazybench.tasks.base import Sample, place_of
from lazybench.tasks.documents import PROMPTS
from lazybench.tasks.embedded import EmbeddedTask, python_version, sha256_of

LEFT_OUT = ("site-packages", "dist-packages", "__pycache__", "config-", "test", "idle_test", "lib2to3", "encodings")
LEAST_LINE_CHARACTERS = 12  # of the line to complete, without its indentation


class StdlibCode(EmbeddedTask):
    """One sample a source file: up to ``characters`` of it (12,500: up to 3,500 tokens), then a line is asked for."""

    max_new_tokens = 64
    chat_format = False

    @cached_property
    def source(self) -> str:
        return f"standard library of {python_version()}"

    @cached_property
    def files(self) -> dict[str, str]:
        """Path in the library to text, of every source that is long enough."""
        library = Path(sysconfig.get_paths()["stdlib"])
        texts: dict[str, str] = {}
        for path in sources(library):
            text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
            if len(text) > self._characters and "\ufffd" not in text:
                texts[path.relative_to(library).as_posix()] = text
        if not texts:
            raise UserError(
                f"no source of {library} is longer than task.parameters.characters={self._characters}; choose fewer"
            )
        return texts

    @property
    def _characters(self) -> int:
        return self.whole_number("characters", 12_500, least=200)

    @cached_property
    def fingerprint(self) -> str:
        return sha256_of(text for item in self.files.items() for text in item)

    def all_samples(self) -> Iterator[Sample]:
        names = list(self.files)
        random.Random(self.settings.seed).shuffle(names)
        return (sample for sample in map(self._sample, names) if sample is not None)

    def _sample(self, name: str) -> Sample | None:
        text = self.files[name]
        lines = text.splitlines(keepends=True)
        eligible = code_lines(text)
        starts = [0, *accumulate(map(len, lines))]  # character at which each line starts
        choices = [number for number in eligible if starts[number] >= self._characters]
        if not choices:
            return None
        target = random.Random(f"{self.settings.seed} {name}").choice(choices)
        first = next(number for number in range(target + 1) if starts[target] - starts[number] <= self._characters)
        context = "".join(lines[first:target])
        prompt = PROMPTS["lcc"].format(context=context)
        answers = (lines[target].rstrip("\n"),)
        return Sample(f"{name}:{target + 1}", prompt, answers, context=place_of(context, prompt))


def sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(LEFT_OUT):
            yield from sources(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


def code_lines(text: str) -> list[int]:
    """The lines, from 0, that start a statement worth completing: no comment, no docstring, not a few characters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    lines = text.splitlines()
    numbers = {
        node.lineno - 1
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    }

    def worth_completing(line: str) -> bool:
        # the metric passes over lines with these marks, so no prediction could match one
        return len(line.strip()) >= LEAST_LINE_CHARACTERS and not any(mark in line for mark in ("`", "#", "//"))

    return [number for number in sorted(numbers) if number < len(lines) and worth_completing(lines[number])]
