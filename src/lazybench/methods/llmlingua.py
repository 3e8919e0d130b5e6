"""LLMLingua-2 as a compressor (Pan et al. 2024, arXiv 2403.12968), through the package ``llmlingua``.

The package's first method (LLMLingua, arXiv 2310.05736) reads the KV cache of transformers 4 and fails on
transformers 5; the second, a classifier that labels each word "keep" or "drop", runs.

Deviations: only what may go is compressed, stretch by stretch; as text, so that the share of our tokens that
remains is near ``keep``, not equal to it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from lazybench.contract import Request
from lazybench.errors import UserError
from lazybench.methods.selective_context import Compressed
from lazybench.methods.shortening import kept_tokens
from lazybench.models.flops import full_prefill_flops

DEFAULT_MODEL = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
WINDOW_TOKENS = 512  # the classifier reads the prompt in pieces of this length


def check_installed() -> None:
    """Raises: UserError with the command that installs the package."""
    if find_spec("llmlingua") is None:
        raise UserError(
            "prompt_compression.compressor=llmlingua needs its package: pip install --no-deps llmlingua; "
            "or choose compressor=selective_context"
        )


def compress(request: Request, may_go: Tensor, keep: float, model: str) -> Compressed:
    """The prompt in LLMLingua-2's words.

    Args:
        may_go: (prompt_tokens,) bool, see ``shortening.droppable``.
    """
    compressor = load(model, request.prompt_ids.device.type)
    prompt, total = request.prompt_ids[0].tolist(), int(may_go.sum())
    rate = max(kept_tokens(keep, len(prompt)) - (len(prompt) - total), 0) / max(total, 1)
    ids: list[int] = []
    read_tokens = 0
    for goes, run in groupby(zip(may_go.tolist(), prompt, strict=True), key=itemgetter(0)):
        tokens = [token for _, token in run]
        if not goes:
            ids += tokens
            continue
        text = request.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
        read_tokens += len(compressor.tokenizer(text).input_ids)
        short = compressor.compress_prompt([text], rate=rate, force_tokens=["\n"])["compressed_prompt"]
        ids += request.tokenizer(short, add_special_tokens=False).input_ids
    flops = full_prefill_flops(compressor.model.config, WINDOW_TOKENS) * read_tokens / WINDOW_TOKENS
    return Compressed(request.prompt_ids.new_tensor([ids]), other_flops=flops)


@cache
def load(model: str, device: str) -> Any:
    """Loaded once, by ``prepare``, and kept. The package seeds torch: that is undone."""
    from llmlingua import PromptCompressor

    state = torch.get_rng_state()
    try:
        return PromptCompressor(
            model, device_map=device, model_config={"trust_remote_code": False}, use_llmlingua2=True
        )
    except OSError as error:
        raise UserError(
            f"prompt_compression.language_model={model!r} can't be loaded; name a folder or a hub id "
            f"({str(error).splitlines()[0]})"
        ) from None
    finally:
        torch.set_rng_state(state)
