"""What an answer looks at: the attention of generated tokens to the prompt, of a draft's answer or the model's own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lazybench.errors import UserError
from lazybench.methods.request import Request
from lazybench.models import LoadedModel, ModelSpec, load_model
from lazybench.models.flops import full_prefill_flops
from lazybench.pruning.checks import window_of
from lazybench.pruning.choosing import Watch
from lazybench.pruning.engine import Pruned
from lazybench.pruning.policy import Policy
from lazybench.pruning.rows import Seen
from lazybench.pruning.scorers import Scorer


@torch.no_grad()
def attention_of_answer(
    model: PreTrainedModel, prompt_ids: Tensor, queries: int, scorer: Scorer, with_prompt: bool
) -> tuple[Tensor, int, float]:
    """Generate greedily with the plain model, and score the prompt's tokens by what each new token looks at.

    Per query the maximum over layers of the scorer's value, then the mean over queries. A query's attention is taken
    over the prompt's keys alone.

    Args:
        prompt_ids: (1, prompt_tokens).
        queries: how many at most; generation ends earlier where the model ends it.
        scorer: of one query.
        with_prompt: the prompt's last token is the first of these queries.

    Returns:
        (1, prompt_tokens) scores, the number of decoding steps that ran, and the FLOPs of the attention rows.
    """
    prompt, layers = prompt_ids.shape[1], model.config.get_text_config().num_hidden_layers
    best: list[Tensor] = []  # of each forward pass: the maximum over the layers so far

    def see(seen: Seen) -> None:
        in_decoding = seen.position.shape[1] > prompt
        among = replace(seen, valid=seen.position < prompt) if in_decoding else seen
        scores = scorer(among)[:, :prompt].to(prompt_ids.device)
        if seen.layer == 0:
            best.append(scores)
        best[-1] = torch.maximum(best[-1], scores)

    steps = queries - 1 if with_prompt else queries
    with Pruned(model, Policy(), Watch(range(layers), see)) as run:
        model.generate(  # type: ignore[operator]
            prompt_ids, attention_mask=torch.ones_like(prompt_ids), max_new_tokens=steps + 1, do_sample=False
        )
    used = best if with_prompt or len(best) == 1 else best[1:]
    rows = sum(step.scoring_flops for step in run.trace.steps)
    return torch.stack(used).mean(0), len(best) - 1, rows


def attention_of_draft(
    request: Request, draft: ModelSpec | None, lookahead: int, scorer: Scorer
) -> tuple[Tensor, float]:
    """``attention_of_answer`` by a draft model, the prompt's last token among its queries; None: by the model itself.

    Returns:
        (1, prompt_tokens) scores, and the FLOPs of all that the draft ran.

    Raises:
        UserError: a draft of another vocabulary, or with a window that the prompt exceeds.
    """
    drafter = request.model
    if draft is not None:
        loaded = load_draft(draft)
        drafter, window = loaded.model, window_of(loaded.model.config.get_text_config())
        if not _same_vocabulary(loaded.tokenizer, request.tokenizer):
            raise UserError(
                f"spec_prefill.draft={draft.name} has another vocabulary than the model under test; "
                "choose a draft of the same family, or leave it out"
            )
        if window is not None and request.prompt_ids.shape[1] > window:
            raise UserError(
                f"spec_prefill.draft={draft.name} has a window of {window} tokens, the prompt "
                f"{request.prompt_ids.shape[1]}; choose a draft with a longer one, or model.prompt_limit_tokens="
            )
    prompt = request.prompt_ids.to(drafter.device)
    scores, steps, rows = attention_of_answer(drafter, prompt, lookahead, scorer, with_prompt=True)
    ran = prompt.shape[1] + steps  # causal: a step is one more token
    return scores, rows + full_prefill_flops(drafter.config, ran)


_drafts: dict[str, LoadedModel] = {}


def load_draft(spec: ModelSpec) -> LoadedModel:
    """Loaded once and kept: no later call may load inside the clock."""
    if repr(spec) not in _drafts:
        _drafts[repr(spec)] = load_model(spec)
    return _drafts[repr(spec)]


@lru_cache(maxsize=8)  # 128,000 entries take as long to compare as a small draft takes for a prompt
def _same_vocabulary(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether both mean the same tokens by the same ids."""
    vocabulary: dict[str, int] = one.get_vocab()
    return vocabulary == other.get_vocab()
