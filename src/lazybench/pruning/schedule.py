"""LazyLLM's own settings: where tokens are pruned and how many stay (paper, section 3.2 and figure 4).

Layers are 0-based indices of the layers *after* which tokens are pruned. The paper counts from one:
its stages "1-9, 10-19, 20-28, 29-32" of Llama 2 7B prune after the indices 8, 18 and 27.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lazybench.errors import UserError, check_whole_number, unknown_name
from lazybench.pruning.budgets import NEVER, THE_PAPERS, Mass, Ratio, Revival
from lazybench.pruning.places import layers_run, moved, readable_layers
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

    def build(self, num_layers: int, readable: Sequence[int] | None = None) -> PruningSchedule:
        """The same with ``layers``, for a model of ``num_layers`` layers.

        Where several depths fall on one layer, that layer prunes for all of them at once.

        Args:
            readable: the layers that places may move to, see ``places.moved``; None: all.
        """
        check_whole_number("num_layers", num_layers)
        if self.layers is not None:
            return self
        together: dict[int, float] = {}
        for depth, ratio in zip(self.depths or (), self.keep, strict=True):
            layer = moved(layers_run(depth, num_layers) - 1, num_layers, readable)
            together[layer] = ratio if self.ratio_of == "context" else together.get(layer, 1.0) * ratio
        return replace(self, layers=tuple(together), keep=tuple(together.values()), depths=None)

    def check_depth(self, num_layers: int) -> None:
        """Refuse layers that a model of ``num_layers`` does not have, the last one included."""
        self.build(num_layers).policy(prune_nothing=True).check_depth(num_layers)

    def resolved(self, config: Any) -> PruningSchedule:
        """``build`` for the model of this text config, its layers checked."""
        self.check_depth(config.num_hidden_layers)
        return self.build(config.num_hidden_layers, readable_layers(config))

    def policy(self, prune_nothing: bool = False, **options: Any) -> Policy:
        """The policy of a schedule with ``layers``; places that keep everything are left out.

        Args:
            prune_nothing: leave them in.
            options: further fields of ``Policy``.
        """
        from lazybench.pruning.policy import At, Policy  # imports torch, which takes seconds

        pairs = zip(self.layers or (), self.keep, strict=True)
        places = {layer: ratio for layer, ratio in pairs if ratio < 1.0 or prune_nothing}
        mass, of = self.ratio_of == "mass", "entered" if self.ratio_of == "mass" else self.ratio_of
        budget = tuple(Mass(ratio) if mass else Ratio(ratio, of) for ratio in places.values())
        return Policy(At(tuple(places)), budget=budget, revival=self.revival if self.revive else NEVER, **options)

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


def authors_linear() -> dict[str, Any]:
    """The authors' own schedule, as a later paper of theirs gives it (KV Prediction, arXiv 2410.08391).

    Pruning starts at 30% of the depth and ends at 90%; in between the kept share of the whole prompt falls linearly.
    0.75 to 0.25 is one of the pairs that it reports; 20 places are every layer of Llama 2 7B between these depths.
    """
    parts = [place / 19 for place in range(20)]
    depths, keep = ([round(start + way * part, 4) for part in parts] for start, way in ((0.3, 0.6), (0.75, -0.5)))
    return {"depths": tuple(depths), "keep": tuple(keep), "ratio_of": "context"}


# Figure 4 of LazyLLM: 30% of the layers, prune 30% of the tokens that entered, and so on three times, then the last 10%
DEPTHS = (0.3, 0.6, 0.9)
# with 9 of 32 layers at full length the speedup ends at 32 / 9 = 3.56; close to it next to nothing is kept
EARLIER = (0.15, 0.45, 0.75)
# LazyLLM's TTFT speedup on each category of table 1, Llama 2 7B or XGen 7B. The paper does not print its keep ratios.
# Each of these is the equal one k at every pruning layer for which 32 layers cost as 9 + 10k + 9k^2 + 4k^3 (at EARLIER:
# 4 + 10k + 10k^2 + 8k^3; attention's own few percent left out): 32 over that is table 1's TTFT speedup.
TABLE_1 = {
    "single_doc": (DEPTHS, 0.759),
    "multi_doc": (DEPTHS, 0.344),
    "summarization": (DEPTHS, 0.705),
    "few_shot": (DEPTHS, 0.396),
    "synthetic": (DEPTHS, 0.177),
    "code": (DEPTHS, 0.488),
    "xgen_single_doc": (DEPTHS, 0.48),
    "xgen_multi_doc": (DEPTHS, 0.247),
    "xgen_summarization": (DEPTHS, 0.5),
    "xgen_few_shot": (EARLIER, 0.364),
    "xgen_synthetic": (EARLIER, 0.216),
    "xgen_code": (EARLIER, 0.358),
}
# schedules that papers state, by the names that pruning=NAME takes: what differs from the defaults
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"depths": DEPTHS, "keep": (0.7, 0.7, 0.7)},
    "none": {"layers": (), "keep": ()},  # nothing pruned: the engine's own cost, beside plain generate
    "authors_linear": authors_linear(),
    **{f"table1_{name}": {"depths": depths, "keep": (keep,) * 3} for name, (depths, keep) in TABLE_1.items()},
}
PAPER = PruningSchedule(**PRESETS["paper"])
