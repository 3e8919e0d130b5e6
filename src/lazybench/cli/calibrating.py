"""A calibration that runs: its trials on disk, the search at every speed, the comparison, the file of presets."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import geometric_mean, harmonic_mean
from typing import TYPE_CHECKING, Any

import torch
import transformers
import yaml

from lazybench.cli.search import EACH_SPEED, QUESTIONS, Space, Traced, search, trace
from lazybench.errors import UserError, shown
from lazybench.measure.fidelity import quality
from lazybench.measure.work import shares_of
from lazybench.methods import build
from lazybench.methods.base import Method, PolicyMethod
from lazybench.methods.request import Request
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.flops import layer_cost
from lazybench.models.foreign import read_json
from lazybench.pruning.settings import plain
from lazybench.report.statistics import KL_FLOOR, compare_divergences
from lazybench.run.files import append_whole, write_atomically, write_error
from lazybench.run.provenance import code, without_folders
from lazybench.tasks.calibration import calibration_prompts, fingerprint
from lazybench.tasks.embedded import python_version

if TYPE_CHECKING:  # which imports this module when it runs
    from lazybench.cli.calibrate import Calibration

FOLDER = Path("results/calibrations")
MIDDLE = 2.0  # the FLOPs ratio that is searched first, with every question


def calibrate(settings: Calibration, spec: ModelSpec) -> int:
    """Search at every speed, compare on texts that the search did not see, and write the presets.

    Raises:
        UserError: weights that mean nothing, speeds that this model can't have, a file that can't be used.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    loaded = load_model(spec)
    if not loaded.scores_mean_something:
        raise UserError("a calibration needs real weights; leave model.weights=random out")
    name = re.sub(r"[^\w.\-]+", "_", f"{loaded.label}-{settings.method}").strip("_")
    out = settings.out or FOLDER / f"{name}.yaml"
    method = build(settings.method)
    assert isinstance(method, PolicyMethod)
    trials = Trials(settings, loaded, out)
    config, scores = loaded.model.config, [trials.traced(False, number).scores for number in range(settings.prompts)]
    presets = _presets(trials, Space(method, config.get_text_config(), layer_cost(config), scores))
    content = {"method": method.name, **trials.identity, "trials": len(trials.known), "presets": presets}
    write_atomically(out, yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True).encode())
    for speed, preset in presets.items():
        print(_in_words(speed, preset))
    print(f"to use it: 'methods=[baseline,{{method: {method.name}, preset: {out}@{next(iter(presets))}}}]'")
    return 0


def _presets(trials: Trials, space: Space) -> dict[str, dict[str, Any]]:
    """By speed, each with its comparison."""
    settings, start = trials.settings, {name: answers[0] for name, answers in QUESTIONS[space.method.name].items()}
    first, *others = sorted(settings.speeds, key=lambda speed: abs(math.log(speed / MIDDLE)))
    found = {}
    for speed in (first, *others):
        questions = [name for name in start if speed == first or name in EACH_SPEED]
        shape = search(space, start, questions, speed, trials.log_kl, settings.prompts)
        start = shape if speed == first else start
        if (method := space.at(shape, speed)) is not None:
            ran = harmonic_mean([trials.run(method, False, number)[1] for number in range(settings.prompts)])
            found[speed] = space.at(shape, speed * speed / ran) or method  # plain scores foresee not all
        else:
            print(f"{speed:g}x: no preset, for {space.method.name} can't have it here", file=sys.stderr)
    if not found:
        raise UserError(f"speeds={list(settings.speeds)}: {space.method.name} can have none on {trials.loaded.label}")
    return {f"{speed:g}x": _compared(trials, found[speed], space.standing(speed)) for speed in sorted(found)}


def _compared(trials: Trials, method: Method, standing: Method) -> dict[str, Any]:
    """A preset, what it loses on the held-out prompts, and the standing one there at the same FLOPs ratio."""
    numbers = range(trials.settings.held_out)
    own, other = ([trials.run(one, True, number) for number in numbers] for one in (method, standing))
    compared = compare_divergences([kl for kl, _ in own], [kl for kl, _ in other])
    columns = compared.columns("kl_over_standing")
    return {
        "params": plain(method),
        **_means(own),
        "standing": {"params": standing.params, **_means(other)},
        **{name: short(value) for name, value in columns.items() if not math.isnan(value)},  # few samples: no interval
    }


def _means(trials: list[tuple[float, float]]) -> dict[str, float]:
    kl, ratios = zip(*trials, strict=True)
    return {"flops_ratio": short(harmonic_mean(ratios)), "kl": short(geometric_mean(kl))}


def _in_words(speed: str, preset: Mapping[str, Any]) -> str:
    text = f"{speed}: KL {preset['kl']:g} nats at a FLOPs ratio of {preset['flops_ratio']:g} on held-out prompts"
    bounds = [f"{preset[name]:.2f}" for name in ("kl_over_standing_low", "kl_over_standing_high") if name in preset]
    interval = f" [{', '.join(bounds)}]" if bounds else ""
    return f"{text}, {preset['kl_over_standing']:.2f}{interval} of the standing preset's"


def short(value: float) -> float:
    """Four digits of it."""
    return float(f"{value:.4g}")


def _known(lines: list[bytes], first: bytes, path: Path) -> dict[str, tuple[float, float]]:
    """KL divergence and FLOPs ratio by trial."""
    if lines[0] != first:
        raise UserError(f"{path} holds the trials of another calibration; choose another file with out=")
    try:
        trials = [read_json(line) for line in lines[1:]]
        return {str(one["trial"]): (float(one["kl"]), float(one["flops_ratio"])) for one in trials}
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no trials ({shown(error)}); choose another file with out=") from None


class Trials:
    """A method's KL divergence and FLOPs ratio on one prompt each: run once, kept in a file, and counted.

    Attributes:
        identity: what a trial depends on, beside the method and the prompt's number.
        known: trials by method and prompt.
    """

    def __init__(self, settings: Calibration, loaded: LoadedModel, out: Path) -> None:
        """Read the trials of an interrupted calibration.

        Raises:
            UserError: the file holds those of another one, or can't be used.
        """
        self.settings, self.loaded, self.path = settings, loaded, out.with_suffix(".trials.jsonl")
        counts = (settings.prompts, settings.held_out)
        tokens, seed = settings.tokens, settings.seed
        self.texts = [calibration_prompts(count, tokens, seed, half == 1) for half, count in enumerate(counts)]
        self.traced = cache(self._traced)
        self.identity = self._identity()
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True, default=str).encode()).hexdigest()
        first = json.dumps({"calibration": digest}).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
            whole = [line for line in lines if line.endswith(b"\n")] or [first]  # the last one may be torn
            self.known = _known(whole, first, self.path)
            write_atomically(self.path, b"".join(whole))
        except OSError as error:
            raise write_error(self.path, error) from error

    def log_kl(self, method: Method, number: int) -> float:
        """Of a method on one prompt of the search."""
        return math.log(self.run(method, False, number)[0])

    def run(self, method: Method, held_out: bool, number: int) -> tuple[float, float]:
        """KL divergence from the plain model in nats, and FLOPs ratio, of a method on one prompt."""
        key = json.dumps([method.params, held_out, number], sort_keys=True)
        if key not in self.known:
            prompt = self.traced(held_out, number)
            judged = quality(method, prompt.request, prompt.reference)
            kl = max(short(judged.fidelity.kl), KL_FLOOR)
            self.known[key] = kl, short(shares_of(judged.response.work, prompt.request).flops_ratio)
            line = {"trial": key, "kl": kl, "flops_ratio": self.known[key][1]}
            with self.path.open("ab") as file:
                append_whole(file.fileno(), json.dumps(line).encode() + b"\n", self.path)
            if len(self.known) % 20 == 0:
                print(f"trial {len(self.known)}", file=sys.stderr, flush=True)
        return self.known[key]

    def _traced(self, held_out: bool, number: int) -> Traced:
        """What the plain model makes of a prompt of the search, or of a held-out one."""
        loaded, settings = self.loaded, self.settings
        ids = self.texts[held_out][number].encode(loaded).ids.to(loaded.model.device)
        if ids.shape[1] + settings.steps > loaded.window_tokens:
            raise UserError(f"tokens={settings.tokens} exceeds the model's window of {loaded.window_tokens}")
        limits = {"max_new_tokens": settings.steps, "do_sample": False, "num_beams": 1}
        return trace(Request(loaded.model, loaded.tokenizer, ids, limits, settings.seed + number))

    def _identity(self) -> dict[str, Any]:
        settings = plain(self.settings)
        model = without_folders(dict(self.loaded.provenance))
        return {
            "model": {"label": self.loaded.label, **model},
            **{name: settings[name] for name in ("tokens", "prompts", "held_out", "steps", "seed")},
            "texts": {"source": python_version(), "sha256": [fingerprint(half) for half in self.texts]},
            "code": {key: value for key, value in code().items() if key != "changed_files"},
            "libraries": {"torch": str(torch.__version__), "transformers": transformers.__version__},
        }
