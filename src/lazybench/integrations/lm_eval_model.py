"""``lazyllm`` as a model of lm-eval: Hugging Face's, with pruning in everything it generates."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from lazybench import LazyLLM, PruningSchedule, UserError
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
        pruning: a preset, or layers and keep ratios as ``9:0.7+19:0.7+28:0.7``.
        prompt_limit_tokens: longer prompts are cut in the middle, as LongBench does; none: the window less the
            generation.
        unpruned_loglikelihood: answer loglikelihood requests with the plain model instead of refusing them.

    Raises:
        UserError: an unknown preset, a schedule that the model is too shallow for, weights that are missing.
    """

    AUTO_MODEL_CLASS: Any = None  # HFLM's

    def __init__(
        self,
        pretrained: Any,
        pruning: str = "paper",
        prompt_limit_tokens: int | None = None,
        unpruned_loglikelihood: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(pretrained=pretrained, backend="causal", **kwargs)
        self.schedule = schedule_of(str(pruning)).resolved(self.model.config.get_text_config())
        self.prompt_limit_tokens = prompt_limit_tokens
        self.unpruned_loglikelihood = unpruned_loglikelihood

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

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self._check_unpruned()
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        self._check_unpruned()
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def _check_unpruned(self) -> None:
        if not self.unpruned_loglikelihood:
            raise UserError(
                "model=lazyllm does not prune loglikelihood requests (a pruned token has no logits), so their scores "
                "would be the plain model's; choose generation tasks, --model hf, or unpruned_loglikelihood=True"
            )


def schedule_of(pruning: str) -> PruningSchedule:
    """The schedule that ``pruning=...`` of ``--model_args`` names.

    >>> schedule_of("9:0.7+19:0.5").keep
    (0.7, 0.5)
    """
    if ":" in pruning:
        try:
            pairs = [(int(layer), float(keep)) for layer, keep in (part.split(":") for part in pruning.split("+"))]
        except ValueError:
            raise UserError(f"pruning={pruning!r} must be layers and keep ratios, as in 9:0.7+19:0.7+28:0.7") from None
        return PruningSchedule(tuple(layer for layer, _ in pairs), tuple(keep for _, keep in pairs))
    return PruningSchedule.preset(pruning)
