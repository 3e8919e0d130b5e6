"""Which of a prompt's tokens survive which layers, and which come back in decoding: positions, never text.

``keep_tokens=true`` writes them into ``tokens.jsonl`` of the run's folder, by a generation of its own for each sample
and method, after everything was measured. The report's page draws them over the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lazybench.config import RunConfig
from lazybench.contract import Method
from lazybench.methods.rerun import RerunMethod
from lazybench.methods.static_pruning import StaticPruning
from lazybench.methods.under_engine import PolicyMethod
from lazybench.models import LoadedModel
from lazybench.pruning.engine import Pruned
from lazybench.pruning.look import Watch
from lazybench.pruning.policy import Policy
from lazybench.pruning.scorers import Seen
from lazybench.requests import encode, request_for
from lazybench.store.files import TOKENS, write_atomically
from lazybench.tasks.base import Prompt, Sample, Task

Span = tuple[int, int]  # characters of the sample's prompt, from and to


@dataclass(frozen=True)
class KeptTokens:
    """What one generation attended to, stage by stage.

    Attributes:
        stages: first and last layer of each stage, 0-based.
        survived: for each prompt token the number of stages whose layers attended to it in the prefill.
        revived: for each decoding step and stage the prompt tokens that the stage attends to for the first time.
    """

    stages: list[tuple[int, int]]
    survived: list[int]
    revived: list[list[list[int]]] = field(default_factory=list)


class _Noted:
    """A watcher's notes: of each forward pass the positions that each layer attends to."""

    def __init__(self) -> None:
        self.passes: list[dict[int, set[int]]] = []

    def __call__(self, seen: Seen) -> None:
        if not self.passes or seen.layer in self.passes[-1]:
            self.passes.append({})
        position = seen.position[0] if seen.valid is None else seen.position[0][seen.valid[0]]
        self.passes[-1][seen.layer] = set(position.tolist())


def watch_tokens(
    model: PreTrainedModel, policy: Policy, prompt_ids: Tensor, **generate_kwargs: Any
) -> tuple[KeptTokens, Tensor]:
    """Generate once under a policy and note which tokens each stage attends to.

    Args:
        prompt_ids: (1, prompt_tokens), on the model's device.
        generate_kwargs: for ``model.generate``.

    Returns:
        The positions, and what was generated, (new_tokens,).

    Raises:
        UserError: as ``Pruned``.
    """
    noted = _Noted()
    layers = range(model.config.get_text_config().num_hidden_layers)
    with Pruned(model, policy, Watch(layers, noted)) as run:
        output = model.generate(prompt_ids, attention_mask=torch.ones_like(prompt_ids), **generate_kwargs)  # type: ignore[operator]
    prompt = range(prompt_ids.shape[1])
    stages = [stage for stage in run.trace.stages if len(stage)]
    known = [noted.passes[0][stage.start] for stage in stages]
    survived = [sum(token in stage for stage in known) for token in prompt]
    revived = []
    for step in noted.passes[1:]:
        came = [step[stage.start] & set(prompt) - before for stage, before in zip(stages, known, strict=True)]
        known = [before | new for before, new in zip(known, came, strict=True)]
        revived.append([sorted(new) for new in came])
    return KeptTokens([(s.start, s.stop - 1) for s in stages], survived, revived), output[0, len(prompt) :]


def tokens_of_method(method: Method, request: Any) -> KeptTokens | None:
    """What a method keeps of a request's prompt; None where it doesn't choose by layers, or not by a policy alone."""
    if isinstance(method, RerunMethod):
        chosen = set(method.positions(request)[0].tolist())
        layers = request.model.config.get_text_config().num_hidden_layers
        return KeptTokens([(0, layers - 1)], [int(token in chosen) for token in range(request.prompt_ids.shape[1])])
    policy = policy_of(method, request.model.config.get_text_config())
    if policy is None:
        return None
    return watch_tokens(request.model, policy, request.prompt_ids, **request.generate_kwargs)[0]


def policy_of(method: Method, config: PreTrainedConfig) -> Policy | None:
    """The policy that is all of a method; None for one that runs something else too (a probe, a draft).

    Args:
        config: the model's text config.
    """
    continued = isinstance(method, StaticPruning) and method.variant == "continue"
    if isinstance(method, PolicyMethod) and (continued or type(method).run is PolicyMethod.run):
        return method.policy(config)
    return None


def keep_tokens(config: RunConfig, loaded: LoadedModel, samples: Sequence[tuple[Task, int, Sample]]) -> None:
    """Write ``tokens.jsonl``: a line for each sample, with what each method kept of it. A file that is there stays."""
    path = Path(config.out) / TOKENS
    if path.exists():
        return
    lines = []
    for task, index, sample in samples:
        prompt = encode(config, loaded, task, sample)
        request = request_for(config, loaded, task, prompt, index)
        kept = {(m.name, m.label): tokens_of_method(m, request) for m in config.methods}
        methods = [
            {"method": name, "variant": label, **asdict(found)} for (name, label), found in kept.items() if found
        ]
        line = {"task": task.name, "sample_id": sample.sample_id, "spans": spans(loaded, prompt, sample.prompt)}
        lines.append(json.dumps({**line, "methods": methods}))
    write_atomically(path, "".join(line + "\n" for line in lines).encode())


def spans(loaded: LoadedModel, prompt: Prompt, text: str) -> list[Span | None] | None:
    """Of each token its characters of the sample's prompt; None for the chat format's, and where they can't be told.

    Args:
        text: the sample's prompt, whole.
    """
    ids = prompt.ids[0].tolist()
    decoded = str(loaded.tokenizer.decode(ids))
    encoded = loaded.tokenizer(decoded, add_special_tokens=False, return_offsets_mapping=True)
    if encoded.input_ids != ids:  # a tokenizer that does not read back what it writes
        return None
    own = [place for place, template in enumerate(prompt.template.tolist()) if not template]
    if not own:
        return [None] * len(ids)
    begin, end = encoded.offset_mapping[own[0]][0], encoded.offset_mapping[own[-1]][1]
    shown = decoded[begin:end]
    same = (one == other for one, other in zip(shown, text, strict=False))
    head = len(list(takewhile(bool, same)))  # a long prompt lost its middle: the rest is its tail
    found: list[Span | None] = [None] * len(ids)
    for place in own:
        start, stop = (offset - begin for offset in encoded.offset_mapping[place])
        shift = 0 if stop <= head else len(text) - len(shown)
        if shown[start:stop] == text[start + shift : stop + shift]:
            found[place] = (start + shift, stop + shift)
    return found
