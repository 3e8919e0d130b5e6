"""LazyLLM on a Hugging Face model: hooks around its layers, nothing copied, everything put back.

The model's own ``forward`` and ``generate`` run untouched. Four attachments do the work:

1. the cache that ``generate`` makes is replaced by a ``LazyCache`` as the decoder starts;
2. before each layer, inputs with one row per token are cut to the tokens that the layer computes;
3. the attention and mask functions registered for the model read the selected tokens' keys and values;
4. after a pruning layer, the most important tokens are chosen and the hidden states handed to the next
   layer are those of the chosen tokens that it has not computed yet.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from lazybench.errors import UserError
from lazybench.pruning import checks, legacy
from lazybench.pruning.attention import lazy_attention
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.calls import GenerateCalls
from lazybench.pruning.masks import MaskRule, mask_rule
from lazybench.pruning.schedule import PruningSchedule
from lazybench.pruning.selection import most_important
from lazybench.pruning.stage import Stage
from lazybench.pruning.step import LayerView, Step
from lazybench.pruning.trace import StepTrace, Trace

IMPLEMENTATION = "lazyllm"  # must contain no name of transformers' own: it looks for those as substrings
_active: WeakSet[Module] = WeakSet()


class LazyLLM(AbstractContextManager):
    """Dynamic token pruning (LazyLLM, arXiv 2407.14057) for everything ``model.generate`` does inside.

    ::

        with LazyLLM(model, schedule) as lazy:
            tokens = model.generate(**inputs, max_new_tokens=64)
        lazy.trace.prompt_tokens_computed_mean

    Args:
        model: a decoder-only ``transformers`` model in eval mode.
        schedule: where to prune and how many tokens to keep.

    Raises:
        UserError: on entry, for a model or a schedule that can't run; inside, for a call that asks for what
            pruning does not compute.
    """

    def __init__(self, model: PreTrainedModel, schedule: PruningSchedule) -> None:
        checks.check_model(model)
        config = model.config.get_text_config()
        schedule.check_depth(config.num_hidden_layers)
        self.model, self.config = model, config
        self.schedule = replace(schedule, layers=checks.resolve_windows(schedule, config))
        self._grouped: list[PreTrainedConfig] = []  # of them, those whose experts run as a grouped product
        self._boundary = {layer: index for index, layer in enumerate(self.schedule.layers)}
        self._decoder, self._layers = checks.find_layers(model)
        self._legacy = not model._can_set_attn_implementation()
        self._model_inputs = tuple(inspect.signature(model.forward).parameters)
        self._undo = ExitStack()
        self._cache: LazyCache | None = None
        self._calls = GenerateCalls(model, self._generated)
        self._watch: legacy.AttentionWatch | None = None
        self.trace = Trace(self.schedule.stages(config.num_hidden_layers))

    # ---- attaching and detaching
    def __enter__(self) -> LazyLLM:
        if self.model in _active:
            raise UserError("this model runs under LazyLLM already; leave that context before entering another")
        with ExitStack() as undo:  # whatever fails on the way in, what was attached until then is taken off
            undo.callback(_unregister_when_last)
            _active.add(self.model)
            undo.callback(_active.discard, self.model)
            if not self._legacy:
                self._register(undo)
            self._calls.attach(undo)
            undo.callback(self.model.register_forward_pre_hook(self._before_model, with_kwargs=True).remove)
            undo.callback(self._decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True).remove)
            for index, layer in enumerate(self._layers):
                before, after = _LayerHooks(self, index).pair()
                undo.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
                undo.callback(layer.register_forward_hook(after).remove)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._cache is not None:
            self._cache.abandon_step()
            self._cache = None
        self.stop_watching()
        self._undo.close()

    def _generated(self, tokens: Tensor) -> None:
        """Remember the last token of what ``generate`` returned, (batch, tokens): no pass has read it yet."""
        cache = self._cache
        if cache is not None and tokens.shape == (cache.batch_size, cache.seen + 1):
            cache.unseen = tokens[:, -1:]

    def _register(self, undo: ExitStack) -> None:
        configs = {id(config): config for module in self.model.modules() if (config := getattr(module, "config", None))}
        if any(config._attn_implementation_internal == IMPLEMENTATION for config in configs.values()):
            raise UserError(
                "this model shares its config with one that runs under LazyLLM; build each from its own copy"
            )
        self._grouped = [config for config in configs.values() if _experts_of(config) == "grouped_mm"]
        for config in configs.values():
            undo.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal)
            config._attn_implementation_internal = IMPLEMENTATION
        for interface, function in ((AttentionInterface, lazy_attention), (AttentionMaskInterface, mask_rule)):
            if IMPLEMENTATION not in interface._global_mapping:
                interface.register(IMPLEMENTATION, function)

    def start_watching(self, step: Step) -> None:
        """Legacy families: note the importance as the pruning layer computes its attention."""
        self._watch = legacy.AttentionWatch(step)
        self._watch.__enter__()

    def stop_watching(self) -> None:
        """After the layer, or later if it failed."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self._watch = None

    # ---- one forward pass
    def _before_model(self, module: Module, args: tuple, kwargs: dict[str, Any]) -> None:
        checks.check_mode(module)
        for config in self._grouped:
            # generate decodes with "batched_mm" on a GPU, which copies a token's experts for each token: too many here,
            # where a step computes its revived tokens too
            config._experts_implementation_internal = "grouped_mm"
        named = {**dict(zip(self._model_inputs, args, strict=False)), **kwargs}
        prunes = any(ratio < 1.0 for ratio in self.schedule.keep)
        checks.check_call(named, self.model.config, "logits_to_keep" in self._model_inputs and prunes)

    def _before_decoder(self, module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if kwargs.get("use_cache") is False:
            raise UserError("LazyLLM needs its KV cache; pass use_cache=True")
        cache = kwargs.get("past_key_values")
        if not isinstance(cache, LazyCache):
            checks.check_cache(cache)
            cache = self._new_cache()
        self.stop_watching()
        if self._cache is not None:
            self._cache.abandon_step()
        cache.check_owner(self.model, self.schedule)
        self._cache, self.trace = cache, cache.trace
        inputs = args[0] if args else kwargs.get("input_ids")
        inputs = kwargs["inputs_embeds"] if inputs is None else inputs
        self._begin(cache, inputs, kwargs.get("attention_mask"))
        return args, {**kwargs, "past_key_values": cache, "use_cache": True}

    def _new_cache(self) -> LazyCache:
        stages = [Stage()]
        stage_of_layer = []
        for layer in range(len(self._layers)):
            stage_of_layer.append(stages[-1])
            # where nothing is pruned the stage goes on
            if self._prunes_after(layer):
                stages.append(Stage())
        return LazyCache(stage_of_layer, Trace(self.trace.stages), self.model, self.schedule)

    def _prunes_after(self, layer: int) -> bool:
        return layer in self._boundary and self.schedule.keep[self._boundary[layer]] < 1.0

    def _begin(self, cache: LazyCache, inputs: Tensor, attention_mask: Tensor | None) -> None:
        """Every token is a candidate again; the new ones are computed by the first stage."""
        batch, new = inputs.shape[:2]
        start, tokens = cache.seen, cache.seen + new
        call_begins = self._calls.begins()
        is_prompt = new > 1 or start == 0 or (call_begins and not cache.goes_on(inputs))
        cache.unseen = None
        if is_prompt:
            if start and not call_begins and cache.trace.steps[-1].is_prompt:
                raise UserError(
                    "LazyLLM prunes by the whole prompt's last token; pass the prompt at once, "
                    "or go on with a conversation through generate()"
                )
            checks.check_prompt(self.config, tokens)
            checks.check_padding(attention_mask, start, new)
            cache.prompt_end = tokens
            if start == 0:
                cache.start_batch(batch, new, attention_mask)
        if batch > 1 and self.config.model_type == "mpt":
            raise UserError("mpt runs under LazyLLM one prompt at a time: its position bias has no batch axis")
        if start:
            cache.candidates = [count + new for count in cache.candidates]
        position = torch.arange(tokens, device=inputs.device).expand(batch, -1)
        place = cache.stage_of_layer[0].append(new, position, cache.real_tokens(tokens), cache.candidates)
        cache.step = Step(start, new, place)
        fresh = sum(min(new, count) for count in cache.candidates)
        cache.trace.steps.append(StepTrace(fresh, is_prompt))
        self._note(cache, revived=0)

    def _prune(self, cache: LazyCache, layer: int, hidden: Tensor) -> Tensor:
        """Paper, sections 3.2 and 3.3: choose the tokens of the next stage; return those it must compute.

        Args:
            hidden: (batch, current tokens, hidden), as the pruning layer left them.

        Returns:
            (batch, next current tokens, hidden): the kept and the revived, at their original positions.
        """
        step, stage = cache.step, cache.stage_of_layer[layer + 1]
        assert step is not None
        if not self._selects(step):
            step.enter(stage.extend(step.place.current))
            return hidden
        chosen, counts = most_important(cache, self.schedule, self._boundary[layer])
        cache.put_aside(hidden)
        step.enter(stage.select(chosen, counts, step.tokens))
        return cache.fetch(hidden.device)

    def _selects(self, step: Step) -> bool:
        return self.schedule.revive or step.start == 0

    @staticmethod
    def _revived(step: Step) -> int:
        if step.start == 0:
            return 0
        if step.new == 1:  # the new token itself is always computed
            return sum(step.place.computed) - len(step.place.computed)
        current = step.place.current
        return int(((current >= 0) & (current < step.start)).sum())

    def _note(self, cache: LazyCache, revived: int) -> None:
        assert cache.step is not None
        place = cache.step.place
        cache.trace.steps[-1].add(sum(place.computed), sum(place.counts), revived)

    def _finish(self, cache: LazyCache, hidden: Tensor) -> Tensor:
        """The last token's hidden state where the model expects it; the pruned have none, so they get NaN."""
        step = cache.step
        assert step is not None
        cache.seen += step.new
        cache.step = None
        if step.is_first_stage:  # nothing was pruned
            return hidden
        padded = hidden.new_full((hidden.shape[0], step.new, hidden.shape[2]), float("nan"))
        padded[:, -1] = hidden[:, -1]
        return padded


class _LayerHooks:
    """The hooks before and after one decoder layer."""

    def __init__(self, engine: LazyLLM, layer: int) -> None:
        self.engine, self.layer = engine, layer
        self.is_last = layer == len(engine._layers) - 1
        self.prunes = engine._prunes_after(layer)
        self.is_boundary = layer in engine._boundary

    def pair(self) -> tuple[Any, Any]:
        return self.before, self.after

    def before(self, module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        cache = self.engine._cache
        assert cache is not None
        step = cache.step
        assert step is not None
        hidden = () if "hidden_states" in kwargs else args[:1]
        kept_whole = ("hidden_states", *(legacy.KEY_INPUTS if self.engine._legacy else ()))
        args = (*hidden, *(self._input(cache, (self.layer, i), value) for i, value in enumerate(args[len(hidden) :])))
        kwargs = {
            name: value if name in kept_whole else self._input(cache, (self.layer, name), value)
            for name, value in kwargs.items()
        }
        if self.engine._legacy:
            kwargs = legacy.adapt_inputs(kwargs, step, self.engine.config.model_type == "mpt")
            if self.prunes and self.engine._selects(step):
                self.engine.start_watching(step)
        return args, kwargs

    def _input(self, cache: LazyCache, name: tuple, value: Any) -> Any:
        if isinstance(value, MaskRule):
            assert cache.step is not None
            return LayerView(cache.step, cache.step.visibility(value), self.prunes and self.engine._selects(cache.step))
        return cache.token_inputs(name, value)

    def after(self, module: Module, args: tuple, output: Any) -> Any:
        self.engine.stop_watching()
        cache = self.engine._cache
        assert cache is not None
        step = cache.step
        assert step is not None
        hidden = output if isinstance(output, Tensor) else output[0]
        if self.prunes:
            hidden = self.engine._prune(cache, self.layer, hidden)
        if self.is_boundary:
            self.engine._note(cache, self.engine._revived(step))
        if self.is_last:
            hidden = self.engine._finish(cache, hidden)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


def _experts_of(config: PreTrainedConfig) -> str | None:
    return getattr(config, "_experts_implementation_internal", None)


def _unregister_when_last() -> None:
    if not _active:
        for interface in (AttentionInterface, AttentionMaskInterface):
            interface._global_mapping.pop(IMPLEMENTATION, None)
