"""What methods and measuring agree on: a method takes a request and answers with tokens and the work it ran.

A method is a registered frozen dataclass: its fields are its parameters, their defaults stand nowhere else, and their
annotations say what is allowed. Its module imports no torch at the top, so that a bad value is refused at once.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar, cast

from lazybench import pruning
from lazybench.errors import UserError
from lazybench.methods.request import Before, Model, Request, Response, Tensor, TextConfig
from lazybench.pruning.settings import Checked, differing, plain


class Method(Checked, ABC):
    """One way to shorten the prefill: a registered frozen dataclass with its parameters as fields.

    Attributes:
        name: as it is typed, and in records.
        title: as tables and figures show it.
        drawn_as: its colour and marker in every figure (colours of Okabe and Ito, and of Paul Tol).
        shown: parameters that a label shows even at their defaults.
        amount: parameters that say how much is kept; settings that differ in nothing else are one curve.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    drawn_as: ClassVar[tuple[str, str]] = ("#808080", "o")
    shown: ClassVar[tuple[str, ...]] = ("keep",)
    amount: ClassVar[tuple[str, ...]] = ("keep",)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that are not at their defaults, by name, as JSON types: what a record holds."""
        return differing(self, type(self)())

    @property
    def label(self) -> str:
        """The parameters in a few words, for people."""
        return self.label_of(self.params)

    @classmethod
    def label_of(cls, params: Mapping[str, Any], without: Sequence[str] = ()) -> str:
        """``"keep=0.5 depth=0.25"`` of what a record holds: what is shown always, then whatever else is set."""
        defaults = flat(plain({one.name: one.default for one in fields(cast(Any, cls))}))
        given = {**defaults, **flat(params)}
        set_too = [name for name in flat(params) if name not in cls.shown]
        named = {name: given[name] for name in (*cls.shown, *set_too) if given.get(name) is not None}
        return " ".join(f"{name}={shown(value)}" for name, value in named.items() if name not in without)

    @classmethod
    def family_of(cls, params: Mapping[str, Any]) -> str:
        """The label without the ``amount``."""
        return cls.label_of(params, without=cls.amount)

    @property
    def repeats(self) -> int:
        """How often a sample must run at least; above 1 for a method that draws at random."""
        return 1

    def prepare(self, model: Model) -> None:
        """Once for each model, outside the clock: refuse what can't run, make what depends on the model alone.

        A method must run without it too: it may only save time later.

        Raises:
            UserError: this model can't run with these parameters.
        """

    @abstractmethod
    def run(self, request: Request) -> Response:
        """Generate from the request's prompt."""

    def answer(self, request: Request, *chosen: Any) -> Response:
        """What the plain model generates from the prompt, or from what was chosen of it; see ``running.answer``."""
        from lazybench.methods import running

        return running.answer(request, *chosen)


class PolicyMethod(Method):
    """A method that says how it chooses tokens, and leaves the rest to the engine."""

    @property
    def only_prunes(self) -> bool:
        """Whether the policy is the whole method, so that it needs no clock, draft or second run around it."""
        return type(self).run is PolicyMethod.run

    @abstractmethod
    def policy(self, config: TextConfig) -> pruning.Policy:
        """The policy for a model of this text config.

        Raises:
            UserError: the parameters don't fit this model.
        """

    def for_model(self, model: Model) -> pruning.Policy:
        """The policy for a model, under the method's name in the engine's errors."""
        from lazybench.pruning.attach import parts_of

        return replace(self.policy(parts_of(model, self.title).config), name=self.title)

    def prepare(self, model: Model) -> None:
        """Refuse a model or parameters that can't run, before anything is measured."""
        pruning.Pruned(model, self.for_model(model))

    def run(self, request: Request) -> Response:
        return self.answer_pruned(request, self.for_model(request.model))

    def answer_pruned(self, request: Request, policy: pruning.Policy, **before: Any) -> Response:
        """What the model generates while the engine prunes; see ``running.answer_pruned``."""
        from lazybench.methods import running

        return running.answer_pruned(request, policy, **before)


class RerunMethod(Method):
    """A method that says which tokens the model sees; they stay in the text's order and are numbered anew.

    Attributes:
        looks: whether it reads the prompt to say so; if not, its length, its template and the seed are all it takes.
    """

    looks: ClassVar[bool] = True

    @property
    def scorer(self) -> pruning.AttentionScorer:
        """What the prompt's tokens are scored by: equation 1 of LazyLLM."""
        return pruning.AttentionScorer()

    @abstractmethod
    def positions(self, request: Request) -> tuple[Tensor, Before]:
        """(kept,) the tokens to keep, rising; and what was run to find them."""

    def prepare(self, model: Model) -> None:
        """Refuse a model whose attention can't be looked at, before anything is measured."""
        if self.looks:
            pruning.Pruned(model, pruning.Policy(scorer=self.scorer, name=self.title))

    def run(self, request: Request) -> Response:
        started = time.perf_counter()
        positions, before = self.positions(request)
        request.synchronize()
        return self.answer(request, positions, before, time.perf_counter() - started)


METHODS: dict[str, type[Method]] = {}
Registered = TypeVar("Registered", bound=type[Method])


def register(kind: Registered) -> Registered:
    """Make a method known by its name.

    Raises:
        UserError: another one has that name.
    """
    if METHODS.setdefault(kind.name, kind) is not kind and METHODS[kind.name].__module__ != kind.__module__:
        raise UserError(f"two methods are named {kind.name}: {METHODS[kind.name].__module__} and {kind.__module__}")
    METHODS[kind.name] = kind
    return kind


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters by their own names."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        found.update(flat(value) if isinstance(value, Mapping) else {name: value})
    return found


def shown(value: object) -> str:
    """A parameter's value for people: ``0.3,0.6`` of a list."""
    if isinstance(value, list | tuple) and len(value) > 6:
        return f"{shown(value[0])}..{shown(value[-1])}"
    if isinstance(value, list | tuple):
        return ",".join(shown(one) for one in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
