"""Token pruning on a Hugging Face model: hooks around its layers, nothing copied, everything put back.

docs/engine.md follows one prompt on its way: the cache that takes the place of ``generate``'s (``cache``), the mask
that is a rule (``attention``), who looks at a layer and who goes on from it (``choosing``, ``scorers``, ``budgets``,
``selection``), where keys lie (``stage``, ``kv``), and what later layers get beside hidden states (``step``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self
from weakref import ref

from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from lazybench.errors import UserError, shown
from lazybench.pruning import attention, checks
from lazybench.pruning.attach import attach, parts_of, save_mlp, wrap_generate
from lazybench.pruning.cache import LazyCache
from lazybench.pruning.choosing import Viewers, Watch, choose_rows, enter_next_stage, prune
from lazybench.pruning.layers import find_attention, find_mlp
from lazybench.pruning.policy import BEFORE_THE_FIRST, Policy
from lazybench.pruning.rows import Seen
from lazybench.pruning.schedule import PruningSchedule
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
        self._layers = parts.layers
        devices = (next((weight.device for weight in layer.parameters()), None) for layer in self._layers)
        self._kinds = list(zip(devices, parts.kinds, strict=True))
        checks.check_policy(policy, self.config, len(self._layers))
        self._viewers = Viewers(policy, watch, self.config)
        self._grouped_experts: list[Any] = []  # configs
        self._of_call: Trace | None = None  # of the ``generate`` call that is under way
        self._undo = ExitStack()
        self._cache: LazyCache | None = None
        self.trace = Trace()  # what was computed, of the generation that ran last

    # ---- attaching and detaching
    def __enter__(self) -> Self:
        parts = self._parts
        with ExitStack() as undo:  # whatever fails on the way in, what was attached until then is taken off
            self._grouped_experts = attach(self.model, parts, self.method, undo)
            wrap_generate(self.model, self._generates, self.method, undo)
            undo.callback(self.model.register_forward_pre_hook(self._before_model, with_kwargs=True).remove)
            undo.callback(parts.decoder.register_forward_pre_hook(self._before_decoder).remove)
            undo.callback(self.model.register_forward_hook(self._after_model).remove)
            for index, layer in enumerate(self._layers):
                self._attach(index, layer, undo)
            self._undo = undo.pop_all()
        return self

    def _attach(self, index: int, layer: Module, undo: ExitStack) -> None:
        """Hooks where there is something to do: behind the first pruning, after prunings, after the last layer."""
        is_behind = bool(self.policy.layers) and index > min(self.policy.layers)
        if is_behind:
            undo.callback(layer.register_forward_pre_hook(self._before_layer(index), with_kwargs=True).remove)
        if index in self.policy.layers or index == len(self._layers) - 1:
            undo.callback(layer.register_forward_hook(self._after_layer(index)).remove)
        if index in self._viewers.normed:
            undo.callback(find_attention(layer, self.method).register_forward_hook(self._after_attention).remove)
        if self.policy.before_mlp and index in self.policy.layers and (mlp := find_mlp(layer)) is not None:
            save_mlp(mlp, self._rows_before_mlp(index), undo)

    def __exit__(self, *error: object) -> None:
        self._forget_cache()
        self._undo.close()

    def _generates(self, begins: bool) -> None:
        self._of_call = Trace() if begins else None

    def _forget_cache(self) -> None:
        if self._cache is not None:
            self._cache.step = None
            self._cache = None

    # ---- one forward pass
    def _before_model(self, module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        checks.check_mode(module, self.method)
        for config in self._grouped_experts:  # "batched_mm", as generate decodes on a GPU, copies each token's experts:
            config._experts_implementation_internal = "grouped_mm"  # too many, where revived tokens run too
        named = {**dict(zip(self._parts.inputs, args, strict=False)), **kwargs}
        only_last_logits = "logits_to_keep" in self._parts.inputs and bool(self.policy.layers)
        checks.check_call(named, self.model.config, only_last_logits, self.method)
        if named.get("use_cache") is False:
            raise UserError(f"{self.method} needs its KV cache; pass use_cache=True")
        given = [named.pop(name, None) for name in ("cache", "past_key_values")]  # either name may come
        cache = next((one for one in given if one is not None), None)
        inputs = named["inputs_embeds"] if named.get("input_ids") is None else named["input_ids"]
        if self._cache is not None and self._cache.step is not None:  # a pass ended halfway: some layers lack its keys
            self._forget_cache()
        if not isinstance(cache, LazyCache):
            checks.check_cache(cache, self.method)
            self._forget_cache()
            # transformers can drop the cache in the middle of a call: what comes then is more of the same work
            cache = LazyCache(self.policy, self._kinds, Trace() if self._of_call is None else self._of_call)
        elif cache is not self._cache or inputs.shape[1] != 1:
            raise UserError(
                f"past_key_values goes on one token at a time, in the {self.method} context that made it and until "
                "another begins; leave it out and pass the whole prompt at once, earlier turns included"
            )
        self._cache, self.trace = cache, cache.trace
        attention.running.set((ref(cache), self._viewers))
        self._begin(cache, inputs, named.get("attention_mask"))
        return (), {**named, self._parts.cache: cache, "use_cache": True}

    def _after_model(self, module: Module, args: tuple, output: Any) -> None:
        if self._cache is not None and self._cache.step is not None:
            raise UserError(f"{self.config.model_type} can't run under {self.method}: its forward leaves layers out")
        if self.policy.layers:
            checks.check_outputs(output, self.method)

    def _before_decoder(self, module: Module, args: tuple) -> None:
        if self._cache is None or self._cache.step is None:
            raise UserError(f"{self.method} runs in the model's own forward; call the model, and not its decoder")

    def _begin(self, cache: LazyCache, inputs: Tensor, attention_mask: Tensor | None) -> None:
        """Every token is a candidate again; the new ones are computed by the first stage."""
        batch, new = inputs.shape[:2]
        start, tokens = cache.seen, cache.seen + new
        if start == 0:
            checks.check_prompt(self.config, tokens)
            checks.check_padding(attention_mask, (batch, tokens))
            if batch > 1 and self.policy.settles:
                raise UserError(f"{self.method} decides for each prompt where to prune; give one prompt at a time")
            first = cache.begin(batch, new, attention_mask, inputs.device)
        else:
            cache.candidates = [count + 1 for count in cache.candidates]
            first = cache.stages[0].extend(start)
        selects = start == 0 or self.policy.revives
        anew = start == 0 or (start - cache.prompt_end) % self.policy.revival.every == 0
        cache.step = Step(start, new, selects, anew, self.policy.settles() if self.policy.settles else None)
        again = start == 0 and bool(cache.trace.steps)
        count = batch if start else sum(cache.candidates)
        cache.trace.steps.append(StepTrace(count, start == 0 and not again, again=count - batch if again else 0))
        cache.enter(cache.stages[0], first)
        if selects and BEFORE_THE_FIRST in self.policy.layers:
            seen = Seen(BEFORE_THE_FIRST, None, None, first.selected, first.current)
            cache.step.scores[BEFORE_THE_FIRST] = self.policy.scorer(seen), first.selected
            enter_next_stage(cache)

    def _finish(self, cache: LazyCache, hidden: Tensor) -> Tensor:
        """The last token's hidden state where the model expects it; the pruned have none, so they get NaN."""
        step = cache.running_step
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
        def before(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
            cache, step = self._running()
            if isinstance(kwargs.get("alibi"), Tensor):  # bloom's biases by distance, one for each key
                keys = cache.follow(index).plan.selected
                kwargs = {**kwargs, "alibi": _of_keys(kwargs["alibi"], keys)}
            if not step.scores_anew:
                return args, kwargs
            # hidden states are of these tokens already, but for layer 0, where tokens were dropped before it
            hidden = args[:1] if index and "hidden_states" not in kwargs else ()
            if rest := args[len(hidden) :]:
                args = (*hidden, *cache.inputs.cut_all(step, index, {str(i): v for i, v in enumerate(rest)}).values())
            whole = {name: kwargs[name] for name in kwargs if name == "alibi" or (name == "hidden_states" and index)}
            kwargs = {**cache.inputs.cut_all(step, index, {**kwargs, **dict.fromkeys(whole)}), **whole}
            return args, kwargs

        return before

    def _after_attention(self, module: Module, args: tuple, output: Any) -> None:
        self._viewers.show_output(self._running()[0], output if isinstance(output, Tensor) else output[0])

    def _after_layer(self, index: int) -> Callable[..., Any]:
        prunes, is_last = index in self.policy.layers, index == len(self._layers) - 1

        def after(module: Module, args: tuple, output: Any) -> Any:
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
        return self._cache, self._cache.running_step


class LazyLLM(Pruned):
    """Dynamic token pruning (LazyLLM, arXiv 2407.14057) for everything ``model.generate`` does inside.

        with LazyLLM(model, schedule) as lazy:
            tokens = model.generate(**inputs, max_new_tokens=64)
        lazy.trace.prompt_tokens_computed_mean

    Args:
        model: a decoder-only ``transformers`` model in eval mode.
        schedule: where to prune and how many tokens to keep, or the name of a preset (``"paper"``).

    Raises:
        UserError: as ``Pruned``; an unknown preset.
    """

    def __init__(self, model: PreTrainedModel, schedule: PruningSchedule | str) -> None:
        config = parts_of(model, "LazyLLM").config
        if isinstance(schedule, str):
            schedule = PruningSchedule.preset(schedule)
        if not isinstance(schedule, PruningSchedule):
            raise UserError(f"schedule={shown(schedule)} must be a PruningSchedule or a preset's name, as in 'paper'")
        self.schedule = schedule.build(config)
        super().__init__(model, self.schedule.policy(name="LazyLLM"))


def _of_keys(alibi: Tensor, selected: Tensor) -> Tensor:
    """(batch * heads, 1, keys): the columns of ``alibi`` (batch * heads, 1, tokens) at the ``selected`` positions."""
    by_head = alibi.view(selected.shape[0], -1, alibi.shape[-1])
    index = selected.clamp(min=0)[:, None].expand(-1, by_head.shape[1], -1).to(alibi.device)
    return by_head.gather(2, index).flatten(0, 1)[:, None]
