"""A method's parameters judged without torch: what its own constructor says, no less and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from lazybench.config_groups import method_nodes
from lazybench.errors import UserError, naming
from lazybench.method_values import check_values

WORSE = (7, -1, 0, 1.5, "neither", True)


def refusal(node: dict[str, Any], how: Any) -> str | None:
    try:
        how(node)
    except UserError as error:
        return str(error)
    except Exception as error:  # Hydra's, around the method's own; or one that is no word on the value
        cause = error.__cause__
        named = naming(get_class(node["_target_"]).name, cause) if isinstance(cause, UserError) else None
        return None if named is None else str(named)
    return None


@pytest.mark.parametrize("name", method_nodes())
def test_it_refuses_what_the_method_refuses_in_the_same_words(name: str) -> None:
    node = OmegaConf.to_container(OmegaConf.create(method_nodes()[name]))
    assert isinstance(node, dict)
    if "pruning" in node:  # judged by its own class
        schedule = "lazybench.pruning.schedule.PruningSchedule"
        node["pruning"] = {"_target_": schedule, "depths": [0.5], "keep": [0.5]}
    for key in (key for key in node if key not in ("_target_", "draft", "pruning")):
        for value in WORSE:
            changed = {**node, key: value}
            said = refusal(changed, check_values)
            if said is not None:  # what needs torch may be left to the constructor, nothing may be made up
                assert said == refusal(changed, lambda node: instantiate(node, _convert_="all")), (key, value)


def test_defaults_pass_and_a_share_above_one_does_not() -> None:
    nodes = method_nodes()
    for node in nodes.values():
        check_values(node)
    for name in ("fastkv", "gemfilter", "spec_prefill", "snapkv", "random_drop"):
        with pytest.raises(UserError, match=f"{name}.* must be a number above 0 and at most 1"):
            check_values({**nodes[name], "propagate" if name == "fastkv" else "keep": 7})


def test_a_class_of_somebody_else_is_left_to_itself() -> None:
    check_values({"_target_": "elsewhere.Method", "keep": 7})
