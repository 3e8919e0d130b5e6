"""Token pruning on a Hugging Face model: hooks around its layers, nothing copied, everything put back.

The way of one prompt through it:

1. ``model.forward`` begins: the cache that ``generate`` made is replaced by a ``LazyCache`` (``_before_decoder``);
2. it asks for a mask and gets a rule instead (``attention``), which it hands to its layers unread;
3. a layer computes queries, keys and values of the tokens at hand; ``cache.update`` stores them and returns those of
   the selected tokens, which lie in front of the layer's buffer (``stage``, ``kv``);
4. the attention function (``attention``) shows queries and keys to whoever looks at this layer (``choosing``): the
   policy's scorer (``scorers``), its retention (``policy``), a watcher; then it runs SDPA;
5. after a pruning layer (``choosing``) the budget says how many tokens stay (``budgets``) and ``choose`` which
   (``selection``); the hidden states handed on are those of the chosen tokens that the next layers lack;
6. layers behind it get rotary embeddings and the like for these tokens only (``inputs``);
7. a decoding step does the same with one new token. If the policy revives, every token is a candidate again, and a
   chosen one whose keys are missing goes along from the Aux Cache; if not, the step runs as the plain model's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from lazybench.errors import UserError, shown
from lazybench.pruning import attention, checks, legacy
from lazybench.pruning.attach import GenerateCalls, attach, parts_of, save_mlp
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.choosing import Viewers, Watch, choose_rows, enter_next_stage, prune
from lazybench.pruning.kv import take_rows
from lazybench.pruning.layers import find_attention, find_mlp
from lazybench.pruning.policy import BEFORE_THE_FIRST, Policy
from lazybench.pruning.rows import Seen
from lazybench.pruning.step import Step
from lazybench.pruning.trace import StepTrace, Trace


class Pruned(AbstractContextManager):
    """A policy for everything that ``model.generate`` does inside.

        with Pruned(model, policy) as run:
            tokens = model.generate(**inputs, max_new_tokens=64)
        run.trace.prompt_tokens_computed_mean

    Not thread-safe: one generation at a time on a model.

    Args:
        model: a decoder-only ``transformers`` model in eval mode.
        policy: how tokens are chosen.
        watch: whom to show the attention of some layers.

    Raises:
        UserError: at construction, for a model or a policy that can't run; inside, for a call that asks for what
            pruning does not compute.
    """

    def __init__(self, model: PreTrainedModel, policy: Policy, watch: Watch | None = None) -> None:
        if not isinstance(policy, Policy):
            raise UserError(f"policy={shown(policy)} must be a Policy; a schedule goes into LazyLLM(model, schedule)")
        self.method = policy.name
        self._parts = parts = parts_of(model, self.method)
        self.model, self.policy, self.config = model, policy, parts.config
        self._decoder, self._layers, self._legacy = parts.decoder, parts.layers, parts.legacy
        devices = (next((weight.device for weight in layer.parameters()), None) for layer in self._layers)
        self._kinds = list(zip(devices, parts.kinds, strict=True))
        checks.check_policy(policy, self.config, len(self._layers), self._legacy)
        self._viewers = Viewers(policy, watch, self.config)
        self._grouped_experts: list[Any] = []  # configs
        self._calls = GenerateCalls(model, self._generated, self.method)
        self._undo = ExitStack()
        self._cache: LazyCache | None = None
        self._attention_watch: legacy.AttentionWatch | None = None
        self.trace = Trace()  # what was computed, of the generation that ran last

    # ---- attaching and detaching
    def __enter__(self) -> Self:
        with ExitStack() as undo:  # whatever fails on the way in, what was attached until then is taken off
            self._grouped_experts = attach(self.model, self._parts, self.method, undo)
            self._calls.attach(undo)
            undo.callback(self.model.register_forward_pre_hook(self._before_model, with_kwargs=True).remove)
            undo.callback(self._decoder.register_forward_pre_hook(self._before_decoder, with_kwargs=True).remove)
            undo.callback(self.model.register_forward_hook(self._after_model).remove)
            for index, layer in enumerate(self._layers):
                self._attach(index, layer, undo)
            self._undo = undo.pop_all()
        return self

    def _attach(self, index: int, layer: Module, undo: ExitStack) -> None:
        """Hooks where there is something to do: behind the first pruning, after prunings, after the last layer."""
        is_behind = bool(self.policy.layers) and index > min(self.policy.layers)
        if is_behind or self._legacy:
            undo.callback(layer.register_forward_pre_hook(self._before_layer(index), with_kwargs=True).remove)
        if index in self.policy.layers or index == len(self._layers) - 1 or self._legacy:
            undo.callback(layer.register_forward_hook(self._after_layer(index)).remove)
        if index in self._viewers.normed:
            undo.callback(find_attention(layer, self.method).register_forward_hook(self._after_attention).remove)
        if self.policy.before_mlp and index in self.policy.layers and (mlp := find_mlp(layer)) is not None:
            save_mlp(mlp, self._rows_before_mlp(index), undo)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._cache is not None:
            self._cache.abandon_step()
            self._cache = None
        self._stop_watching()
        self._undo.close()

    def _generated(self, tokens: Tensor) -> None:
        """Remember the last token of what ``generate`` returned, (batch, tokens): no pass has read it yet."""
        cache = self._cache
        if cache is not None and tokens.shape == (cache.batch_size, cache.seen + 1):
            cache.unseen = tokens[:, -1:]

    # ---- one forward pass
    def _before_model(self, module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        checks.check_mode(module, self.method)
        for config in self._grouped_experts:  # "batched_mm", as generate decodes on a GPU, copies each token's experts:
            config._experts_implementation_internal = "grouped_mm"  # too many, where revived tokens run too
        named = {**dict(zip(self._parts.inputs, args, strict=False)), **kwargs}
        only_last_logits = "logits_to_keep" in self._parts.inputs and bool(self.policy.layers)
        checks.check_call(named, self.model.config, only_last_logits, self.method)
        return (), self._with_cache(named)

    def _after_model(self, module: Module, args: tuple, output: Any) -> None:
        if self._cache is not None and self._cache.step is not None:
            raise UserError(f"{self.config.model_type} can't run under {self.method}: its forward leaves layers out")
        if self.policy.layers:
            checks.check_outputs(output, self.method)

    def _before_decoder(
        self, module: Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        """Where the model's own forward did not run before it."""
        step = None if self._cache is None else self._cache.step
        if step is not None and step.layer < 0 and kwargs.get(self._parts.cache) is self._cache:
            return None
        first = {"input_ids": args[0]} if args else {}
        return args[1:], self._with_cache({**first, **kwargs})

    def _with_cache(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a forward pass with the cache that it fills, which begins here."""
        if kwargs.get("use_cache") is False:
            raise UserError(f"{self.method} needs its KV cache; pass use_cache=True")
        kwargs = dict(kwargs)
        given = [kwargs.pop(name, None) for name in ("cache", "past_key_values")]  # either name may come
        cache = next((one for one in given if one is not None), None)
        self._stop_watching()
        if self._cache is not None:
            self._cache.abandon_step()
        call_begins = self._calls.begins()
        if not isinstance(cache, LazyCache):
            checks.check_cache(cache, self.method)
            # transformers can drop the cache in the middle of a call: what comes then is more of the same work
            trace = self.trace if self._calls.inside and not call_begins else Trace()
            cache = LazyCache(self.policy, self._kinds, trace, (ref(self.model), self.policy))
        checks.check_owner(cache, self.model, self.policy)
        self._cache, self.trace = cache, cache.trace
        attention.running.set((ref(cache), self._viewers))
        inputs = kwargs["inputs_embeds"] if kwargs.get("input_ids") is None else kwargs["input_ids"]
        self._begin(cache, inputs, kwargs.get("attention_mask"), call_begins)
        return {**kwargs, self._parts.cache: cache, "use_cache": True}

    def _begin(self, cache: LazyCache, inputs: Tensor, attention_mask: Tensor | None, call_begins: bool) -> None:
        """Every token is a candidate again; the new ones are computed by the first stage."""
        batch, new = inputs.shape[:2]
        start, tokens = cache.seen, cache.seen + new
        is_prompt = new > 1 or start == 0 or (call_begins and not cache.goes_on(inputs))
        cache.unseen = None
        if is_prompt:
            if start and not call_begins and cache.trace.steps[-1].is_prompt:
                raise UserError(
                    f"{self.method} prunes by the whole prompt's last token; pass the prompt at once, "
                    "or go on with a conversation through generate()"
                )
            checks.check_prompt(self.config, tokens)
            checks.check_padding(attention_mask, start, new)
            cache.prompt_end = tokens
            if start == 0:
                cache.start_batch(batch, new, attention_mask)
                checks.check_batch(self.policy, self.config, batch)
        cache.decoded = 0 if is_prompt else cache.decoded + 1
        if start:
            cache.candidates = [count + new for count in cache.candidates]
        position = torch.arange(tokens, device=inputs.device).expand(batch, -1)
        selects = start == 0 or self.policy.revives
        anew = cache.decoded == 0 or (cache.decoded - 1) % self.policy.revival.every == 0
        cache.step = Step(start, new, selects, anew, self.policy.settles() if self.policy.settles else None)
        again = start == 0 and bool(cache.trace.steps)
        count = sum(min(new, count) for count in cache.candidates)
        cache.trace.steps.append(StepTrace(count, is_prompt and not again, again=count - batch if again else 0))
        first = cache.stages[0].append(new, position, cache.real_tokens(tokens), cache.candidates)
        cache.enter(cache.stages[0], first)
        if selects and BEFORE_THE_FIRST in self.policy.layers:
            seen = Seen(BEFORE_THE_FIRST, None, None, first.selected, first.current)
            cache.step.scores[BEFORE_THE_FIRST] = self.policy.scorer(seen), first.selected
            enter_next_stage(cache)

    def _finish(self, cache: LazyCache, hidden: Tensor) -> Tensor:
        """The last token's hidden state where the model expects it; the pruned have none, so they get NaN."""
        step = cache.step
        assert step is not None
        cache.seen += step.new
        cache.step = None
        trace = cache.trace
        trace.stages = cache.stage_ranges
        trace.kv_bytes.append(cache.kv_bytes)
        trace.aux_bytes.append(cache.aux_bytes)
        if step.new == 1:  # the revived came before it
            return hidden[:, -1:]
        if hidden.shape[1] == step.new:  # nothing was pruned
            return hidden
        padded = hidden.new_full((hidden.shape[0], step.new, hidden.shape[2]), float("nan"))
        padded[:, -1] = hidden[:, -1]
        return padded

    # ---- around one layer
    def _before_layer(self, index: int) -> Callable[..., Any]:
        kept_whole = ("hidden_states", *(legacy.KEY_INPUTS if self._legacy else ()))

        def before(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
            cache, step = self._running()
            if not (step.scores_anew or self._legacy):
                return None
            hidden = () if "hidden_states" in kwargs else args[:1]
            if rest := args[len(hidden) :]:
                args = (*hidden, *cache.inputs.cut_all(step, index, {str(i): v for i, v in enumerate(rest)}).values())
            whole = {name: kwargs.pop(name) for name in kept_whole if name in kwargs}
            kwargs = {**cache.inputs.cut_all(step, index, kwargs), **whole}
            if index == 0 and BEFORE_THE_FIRST in self.policy.layers and step.selects:
                if args:
                    args = (take_rows(args[0], step.plan.current.to(args[0].device)), *args[1:])
                else:
                    states = kwargs["hidden_states"]
                    kwargs["hidden_states"] = take_rows(states, step.plan.current.to(states.device))
            if self._legacy:
                cache.follow(index)
                kwargs = legacy.adapt_inputs(kwargs, step, self.config.model_type == "mpt")
                if self._viewers.wanted(cache):
                    self._attention_watch = legacy.AttentionWatch(cache, self._viewers)
                    self._attention_watch.__enter__()
            return args, kwargs

        return before

    def _after_attention(self, module: Module, args: tuple, output: Any) -> None:
        self._viewers.show_output(self._running()[0], output if isinstance(output, Tensor) else output[0])

    def _after_layer(self, index: int) -> Callable[..., Any]:
        prunes, is_last = index in self.policy.layers, index == len(self._layers) - 1

        def after(module: Module, args: tuple, output: Any) -> Any:
            self._stop_watching()
            cache, step = self._running()
            hidden = output if isinstance(output, Tensor) else output[0]
            if prunes and step.selects:
                hidden = prune(cache, index, hidden)
            if is_last:
                hidden = self._finish(cache, hidden)
            return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

        return after

    def _rows_before_mlp(self, layer: int) -> Callable[[Tensor], Tensor | None]:
        def rows(whole: Tensor) -> Tensor | None:
            cache, step = self._running()
            scored = step.layer == layer and layer in step.scores
            if not (step.selects and scored and whole.shape[:2] == step.plan.current.shape):
                return None
            step.rows_that_go_on = choose_rows(cache)
            cache.trace.steps[-1].mlp_saved = True
            return step.rows_that_go_on

        return rows

    def _running(self) -> tuple[LazyCache, Step]:
        assert self._cache is not None
        assert self._cache.step is not None
        return self._cache, self._cache.step

    def _stop_watching(self) -> None:
        if self._attention_watch is not None:
            self._attention_watch.__exit__(None, None, None)
            self._attention_watch = None
