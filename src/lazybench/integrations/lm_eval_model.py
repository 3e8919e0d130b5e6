"""``lazyllm`` as a model of lm-eval: Hugging Face's, with pruning in everything it generates."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from lazybench import LazyLLM, UserError
from lazybench.models.weights import load_whole
from lazybench.tasks.prompting import truncate_middle


class _Whole:
    @staticmethod
    def from_pretrained(checkpoint: str, **options: Any) -> PreTrainedModel:
        return load_whole(checkpoint, checkpoint, **options)[0]


@register_model("lazyllm")
class LazyLLMModel(HFLM):
    """``HFLM`` whose generations run under ``LazyLLM``; batches are padded on the left as HFLM does.

    Args:
        pretrained: as HFLM's; so are all others that are not named here.
        pruning: a preset of the schedule, as ``run.py pruning=`` takes it.
        prompt_limit_tokens: longer prompts are cut in the middle, as LongBench does; none: the window less the
            generation.

    Raises:
        UserError: an unknown preset, a schedule that the model is too shallow for, weights that are missing.
    """

    AUTO_MODEL_CLASS: Any = None  # HFLM's

    def __init__(
        self,
        pretrained: Any,
        pruning: str = "paper",
        prompt_limit_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pretrained=pretrained, backend="causal", **kwargs)
        self.schedule = LazyLLM(self.model, str(pruning)).schedule
        self.prompt_limit_tokens = prompt_limit_tokens

    def _create_model(self, *arguments: Any, **options: Any) -> None:
        """HFLM's, of a checkpoint that is whole: transformers would draw missing weights at random."""
        backend, self.AUTO_MODEL_CLASS = self.AUTO_MODEL_CLASS, _Whole
        try:
            super()._create_model(*arguments, **options)
        finally:
            self.AUTO_MODEL_CLASS = backend

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> torch.Tensor:
        with LazyLLM(self.model, self.schedule):
            return super()._model_generate(context, max_length, stop, **generation_kwargs)

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """HFLM's, after a cut in the middle: where HFLM would drop the instruction at the start, nothing is left to."""
        limits = [limit for limit in (left_truncate_len, self.prompt_limit_tokens) if limit]
        if limits:
            strings = [truncate_middle(self.tokenizer, text, min(limits)) for text in strings]
        return super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> Any:
        """Refused, as ``loglikelihood_rolling`` is: a pruned token has no logits."""
        raise UserError(
            "model=lazyllm does not prune loglikelihood requests (a pruned token has no logits), so their scores "
            "would be the plain model's; choose generation tasks, or --model hf"
        )

    loglikelihood_rolling = loglikelihood
