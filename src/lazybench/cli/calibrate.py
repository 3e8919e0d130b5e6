"""Where may this model be pruned, and how much? Found on embedded text, without a label or a clock.

lazybench calibrate MODEL [KEY=VALUE ...]

MODEL is what model=MODEL takes: a name, OWNER/NAME, a folder or a .gguf file; model.KEY=VALUE changes it.
method=taper      or lazyllm
speeds=[1.5,2,3]  FLOPs ratios to find a preset for
tokens=1000       length of the prompts, about: that of yours
prompts=6         to choose on; held_out=10 others, without a common text, to compare on
steps=4           of the plain model's answer that are judged
seed=0            draws the prompts
threads=null      CPU threads of torch
out=FILE.yaml     null: results/calibrations/MODEL-METHOD.yaml; trials lie beside it, and an interrupted search goes on
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from lazybench.cli.choices import model_node
from lazybench.errors import UserError, command
from lazybench.models.foreign import yaml_tree
from lazybench.models.spec import ModelSpec
from lazybench.pruning.settings import Checked, Count, Number, build


@dataclass(frozen=True)
class Calibration(Checked):
    """What a calibration is told; see the module."""

    method: Literal["taper", "lazyllm"] = "taper"
    speeds: tuple[float, ...] = (1.5, 2.0, 3.0)
    tokens: Count = 1000
    prompts: Count = 6
    held_out: Count = 10
    steps: Count = 4
    seed: Number = 0
    threads: Count | None = None
    out: Path | None = None

    name: ClassVar[str] = "calibrate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.speeds or min(self.speeds) <= 1:
            raise UserError(f"speeds={list(self.speeds)} must be FLOPs ratios above 1, as in 'speeds=[1.5,2,3]'")
        if self.prompts < 2 or self.tokens < 100:
            raise UserError(f"prompts={self.prompts} tokens={self.tokens} tell too little; at least 2 and 100")


@command
def main(arguments: list[str] | None = None) -> int:
    """Calibrate, and say how the presets found compare.

    Returns:
        0 done, 2 bad input, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    settings, spec = read(given)
    from lazybench.cli.calibrating import calibrate  # imports torch, which takes seconds

    try:
        return calibrate(settings, spec)
    except KeyboardInterrupt:
        print("interrupted; every trial is kept: the same command goes on from there", file=sys.stderr)
        return 130


def read(arguments: Sequence[str]) -> tuple[Calibration, ModelSpec]:
    """Settings and model from ``MODEL KEY=VALUE ...``.

    Raises:
        UserError: anything that is not allowed.
    """
    choice, *rest = arguments
    if "=" in choice:
        raise UserError(f"which model? Its name comes first, as in `lazybench calibrate smollm2 {choice}`")
    values: dict[str, Any] = {}
    for text in rest:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} is no KEY=VALUE, as in tokens=1500")
        try:
            values[key] = yaml_tree(value)
        except yaml.YAMLError:
            raise UserError(f"{text!r} can't be read; write lists as in 'speeds=[1.5,2]'") from None
    of_model = {key.removeprefix("model."): values.pop(key) for key in list(values) if key.startswith("model.")}
    return build(Calibration, values, "calibrate"), build(ModelSpec, {**model_node(choice), **of_model}, "model")
