"""One line of samples.jsonl: one sample, one method, one repeat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lazybench.methods import label

RecordKey = tuple[str, str, str, str, str, int]  # model, task, method, params as text, sample, repeat


@dataclass(frozen=True)
class Record:
    """One measured sample. Times in seconds, shares and scores 0..1; ``None`` where it was not measured."""

    model: str
    task: str
    category: str
    method: str
    params: dict[str, Any]  # of the method, what is not at its default, by name
    sample_id: str
    repeat: int
    prompt_tokens: int
    commit: str | None = None  # of the code that measured it; None where it was no checkout
    truncated_from: int | None = None  # prompt_tokens before the middle was cut out; None: the prompt is whole
    output_tokens: int = 0
    ttft_s: float | None = None  # from handing over the prompt's ids to the first token on the host
    generation_s: float | None = None  # to the last token
    decode_step_s: float | None = None  # mean over the decoding steps
    overhead_s: float = 0.0  # a compressor's own time, inside ttft_s
    score: float | None = None  # None on random weights and in latency runs
    prediction: str = ""
    prompt_tokens_computed: float | None = None  # share, mean over layers
    prompt_tokens_computed_by_stage: tuple[float, ...] = ()
    prompt_tokens_computed_by_step: tuple[tuple[float, ...], ...] = ()  # cumulative, (steps, stages)
    tokens_of_layer_runs: tuple[int, ...] = ()  # that each layer run of the prefill computed; a probe's stand there too
    mlp_tokens_of_layer_runs: tuple[int, ...] = ()  # the same of the MLPs; empty: as many as in the attention
    other_flops: float = 0.0  # before the first token, of anything else: a draft model, scores
    flops_ratio: float | None = None  # FLOPs of the plain prefill over those of this method's
    peak_memory_bytes: int | None = None  # weights included
    added_memory_bytes: int | None = None  # the peak over what was held when the run began: weights left out
    kv_bytes_prefill: int | None = None  # bytes of the KV cache after the prefill
    kv_bytes_end: int | None = None  # and at the end of the generation
    aux_bytes_prefill: int | None = None  # the same of the Aux Cache: hidden states of dropped tokens
    aux_bytes_end: int | None = None
    fidelity_top1: float | None = None  # mean over the output_tokens of the baseline, as is fidelity_kl
    fidelity_kl: float | None = None  # nats
    # of the first token alone, which the prefill decides; the mean of the later n - 1 is (n * mean - first) / (n - 1)
    fidelity_first_top1: float | None = None
    fidelity_first_kl: float | None = None
    order: int = 0  # place of this method among the methods of this sample, from 0
    error: str | None = None  # "OutOfMemoryError: ..." when the sample failed
    details: dict[str, object] | None = None

    @property
    def key(self) -> RecordKey:
        """What makes a record unique within a run: of two lines with one key the later supersedes the earlier."""
        return (self.model, self.task, self.method, self.setting, self.sample_id, self.repeat)

    @property
    def setting(self) -> str:
        """``params`` as one text: equal for equal settings."""
        return json.dumps(self.params, sort_keys=True)

    @property
    def label(self) -> str:
        """``params`` in a few words, for people; nothing reads them."""
        return label(self.method, self.params)
