"""LazyLLM's own settings: where tokens are pruned and how many stay (paper, section 3.2 and figure 4).

Layers are 0-based indices of the layers *after* which tokens are pruned. The paper counts from one:
its stages "1-9, 10-19, 20-28, 29-32" of Llama 2 7B prune after the indices 8, 18 and 27.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lazybench.errors import UserError, check_whole_number, unknown_name
from lazybench.pruning.budgets import NEVER, THE_PAPERS, Mass, Ratio, Revival
from lazybench.pruning.places import place
from lazybench.pruning.settings import Checked, Number, Share

if TYPE_CHECKING:
    from lazybench.pruning.policy import Policy


@dataclass(frozen=True)
class PruningSchedule(Checked):
    """Pruning layers and the keep ratio at each, for one model or, by depths, for a model of any depth.

    Args:
        layers: 0-based indices of the layers after which tokens are pruned, strictly rising. They win over
            ``depths``, so that ``pruning.layers=[8,18,27]`` can be said on top of a preset that has depths.
        keep: the keep ratio at each, in (0, 1].
        depths: the same places as shares of the model's depth, in (0, 1): ``floor(depth * layers)`` layers run first.
            In a model with sliding windows a place moves on to the next layer with full attention.
        ratio_of: what a ratio is relative to. ``"entered"``: the tokens that entered the pruning
            layer (the paper's section 3.2); ``"context"``: all tokens so far; ``"mass"``: the score of those that
            entered, so that how many stay depends on the prompt.
        revive: whether a decoding step selects again and brings pruned tokens back (the paper), or goes on
            with the tokens that the prefill kept and the generated ones.
        revival: how it does so; a mapping of its fields serves too.

    Raises:
        UserError: unordered, repeated or negative layers, a ratio outside (0, 1], lengths that differ, no place.
    """

    layers: tuple[Number, ...] | None = None
    keep: tuple[Share, ...] = ()
    depths: tuple[float, ...] | None = None
    ratio_of: Literal["entered", "context", "mass"] = "entered"
    revive: bool = True
    revival: Revival = THE_PAPERS

    name: ClassVar[str] = "pruning"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            object.__setattr__(self, "depths", None)
        name, places = ("depths", self.depths) if self.layers is None else ("layers", self.layers)
        if places is None:
            raise UserError("pruning.layers and pruning.depths are both empty; give one, or choose pruning=none")
        if len(places) != len(self.keep):
            raise UserError(
                f"pruning.{name} has {len(places)} entries and pruning.keep has {len(self.keep)}; "
                "each pruning layer needs one keep ratio"
            )
        for depth in self.depths or ():
            if not 0.0 < depth < 1.0:
                raise UserError(f"pruning depth {depth!r} must be a share of the model's depth, between 0 and 1")
        for before, after in pairwise(places):
            if after <= before:
                raise UserError(f"pruning.{name}={list(places)} must rise strictly; {after} stands after {before}")

    def build(self, config: Any) -> PruningSchedule:
        """The same with ``layers``, for one model.

        Where several depths fall on one layer, that layer prunes for all of them at once.

        Args:
            config: the model's text config; or its number of layers, where all of them see the whole prompt.
        """
        if not hasattr(config, "num_hidden_layers"):
            check_whole_number("num_layers", config)
            config = SimpleNamespace(num_hidden_layers=config)
        if self.layers is not None:
            return self
        together: dict[int, float] = {}
        for depth, ratio in zip(self.depths or (), self.keep, strict=True):
            layer = place(depth, config)
            together[layer] = ratio if self.ratio_of == "context" else together.get(layer, 1.0) * ratio
        return replace(self, layers=tuple(together), keep=tuple(together.values()), depths=None)

    def policy(self, **options: Any) -> Policy:
        """The policy of a schedule with ``layers``; places that keep everything are left out.

        Args:
            options: further fields of ``Policy``.
        """
        from lazybench.pruning.policy import Policy  # imports torch, which takes seconds

        places = {layer: ratio for layer, ratio in zip(self.layers or (), self.keep, strict=True) if ratio < 1.0}
        mass, of = self.ratio_of == "mass", "entered" if self.ratio_of == "mass" else self.ratio_of
        budget = tuple(Mass(ratio) if mass else Ratio(ratio, of) for ratio in places.values())
        return Policy(tuple(places), budget=budget, revival=self.revival if self.revive else NEVER, **options)

    def stages(self, num_layers: int) -> tuple[range, ...]:
        """The runs of layers between prunings: ``(range(0, 9), range(9, 18), ...)``."""
        edges = [0, *(layer + 1 for layer in self.build(num_layers).layers or ()), num_layers]
        return tuple(range(start, stop) for start, stop in pairwise(edges))

    @classmethod
    def paper(cls, num_layers: int, keep: tuple[float, ...] = (0.7, 0.7, 0.7)) -> PruningSchedule:
        """Figure 4: 30% of the layers, prune 30%, and so on three times, then the last 10%.

        Figure 7's stages of Llama 2 7B (1-9, 10-19, 20-28, 29-32) follow for 32 layers.
        """
        return cls(depths=DEPTHS, keep=keep).build(num_layers)

    @classmethod
    def preset(cls, name: str) -> PruningSchedule:
        """A schedule by its name in ``PRESETS``, for a model of any depth.

        Raises:
            UserError: an unknown name.
        """
        if name.endswith(".yaml"):
            raise UserError(
                f"pruning={name}: a file stands beside a method, 'methods=[{{method: lazyllm, preset: {name}@NAME}}]'; "
                "a schedule is written out, as in 'pruning.layers=[9,19]' 'pruning.keep=[0.7,0.7]'"
            )
        if name not in PRESETS:
            raise unknown_name("pruning", name, PRESETS)
        return cls(**PRESETS[name])


# Figure 4 of LazyLLM: 30% of the layers, prune 30% of the tokens that entered, and so on three times, then the last 10%
DEPTHS = (0.3, 0.6, 0.9)
# schedules that papers state, by the names that pruning=NAME takes: what differs from the defaults
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"depths": DEPTHS, "keep": (0.7, 0.7, 0.7)},
    "none": {"layers": (), "keep": ()},  # nothing pruned: the engine's own cost, beside plain generate
    # The authors' own, by a later paper of theirs (KV Prediction, arXiv 2410.08391): from 30% to 90% of the depth the
    # kept share of the whole prompt falls linearly. 0.75 to 0.25 is one of the pairs that it reports; 20 places are
    # every layer of Llama 2 7B between these depths.
    "authors_linear": {
        "depths": tuple(round(0.3 + 0.6 * (step / 19), 4) for step in range(20)),
        "keep": tuple(round(0.75 - 0.5 * (step / 19), 4) for step in range(20)),
        "ratio_of": "context",
    },
}
PAPER = PruningSchedule(**PRESETS["paper"])
