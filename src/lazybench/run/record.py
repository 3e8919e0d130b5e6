"""A record: one sample, one method, one repeat; one line of samples.jsonl, written and read back here."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lazybench.methods import label
from lazybench.models.foreign import read_json

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
    overhead_s: float = 0.0  # the time to choose what the model sees, inside ttft_s
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


_TYPES = get_type_hints(Record)
_REQUIRED = {field.name for field in fields(Record) if field.default is MISSING}


def to_line(record: Record) -> bytes:
    """One line of strict JSON in ASCII, with its newline.

    JSON has no NaN and no infinity: such a value becomes null, and its field is named in ``details["not_finite"]``,
    so that it is not taken for one that was never measured.
    """
    not_finite: list[str] = []
    plain = {name: _finite(value, name, not_finite) for name, value in asdict(record).items()}
    if not_finite:
        plain["details"] = {**(plain["details"] or {}), "not_finite": not_finite}
    return json.dumps(plain, allow_nan=False, default=str).encode("ascii") + b"\n"


def from_line(line: bytes) -> Record:
    """Read a line; unknown fields are passed over, missing optional ones take their defaults.

    Raises:
        ValueError: not a JSON object, a field missing that every record has, a value of the wrong type.
    """
    value = read_json(line, free=("prediction",))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if missing := _REQUIRED - value.keys():
        raise ValueError(f"no {', '.join(sorted(missing))}")
    known = {name: value[name] for name in _TYPES if name in value}
    for name, content in known.items():
        if not _fits(content, _TYPES[name]):
            raise ValueError(f"{name}={content!r}"[:80] + f" is not {_TYPES[name]}")
        if isinstance(content, list):
            known[name] = tuple(tuple(item) if isinstance(item, list) else item for item in content)
    return Record(**known)


def _finite(value: Any, name: str, not_finite: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if name not in not_finite:
            not_finite.append(name)
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item, name, not_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, name, not_finite) for item in value]
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if arguments[0] is float:  # thousands of numbers a line: compare types, not values
            return {type(item) for item in value} <= {float, int, type(None)}
        return all(_fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        kinds = (int, float) if hint is float else int
        return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)  # 1e999 is inf
    return isinstance(value, origin or hint)
