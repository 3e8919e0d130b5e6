"""``python experiments/published.py FOLDER``: the tables of README and docs, from the files of a campaign.

FOLDER holds one file of records a part, as ``experiments/campaign.py --pack`` writes them. Each table goes between its
marker, ``<!-- leaderboard -->``, and the next ``<!-- end -->``; the pictures to docs/images. What no part
measured yet stays as it is, and a need without its measurement has no row.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import yaml
from front import front
from parts import OURS, Methods, Part, fullest, read_parts

from lazybench.errors import UserError, command
from lazybench.methods import build, title
from lazybench.report.curves import FLOOR, FLOPS, MEMORY, Pair, against, curve_names, scores
from lazybench.report.figures.style import save
from lazybench.report.leaderboard import MATCHED
from lazybench.report.page import RIGHT, build_figures
from lazybench.report.results import load
from lazybench.report.statistics import LEAST_SAMPLES, divergence
from lazybench.report.text import format_estimate, formatted, markdown, settings_label
from lazybench.run.files import write_atomically
from lazybench.run.record import Record

BIGGER = ("qwen_1_5b_1500", "qwen_1_5b_800")
SIDES = (("smollm2_1500",), BIGGER)  # of each model the part with the most records stands for it
OTHERS = (("qwen_0_5b_1500",), ("gemma_270m_1500",))  # beside them where there is room
DRAFTED = "spec_prefill"  # needs a draft model: compared where one is at hand
NAMED = 3  # methods in a cell; more are counted
MIDDLE = (0.3, 0.7)  # shares of a prompt's depth
USUAL = ", 1,500 tokens"  # where nothing else is said


@dataclass(frozen=True)
class Need:
    """What somebody wants, and by which samples it is answered."""

    words: str
    parts: tuple[tuple[str, ...], ...] = SIDES
    asks: Callable[[Record], bool] | None = None
    ratio: tuple[str, float] = (FLOPS, 2.0)
    made_for: str = ""  # the method made for it: a part counts where that one was measured too
    counts: bool = False  # how many answers are right says more than a mean


NEEDS = (
    Need("a long document and a question", asks=lambda record: record.category in ("single_doc_qa", "multi_doc_qa")),
    Need(
        "one fact in the middle",
        (("smollm2_needle",),),  # on the 1.5B all find all: docs/results.md
        lambda record: MIDDLE[0] <= float(str((record.details or {}).get("depth", 0))) <= MIDDLE[1],
        counts=True,
    ),
    Need("code", asks=lambda record: record.category == "code"),
    Need("only memory", ratio=(MEMORY, 2.0), made_for="snapkv"),
    Need("2x at the least loss"),
    Need("a windowed model", (("gemma_270m_1500",),)),
    Need("a draft model at hand", (BIGGER,), made_for=DRAFTED),
)


def leaderboard(sides: Sequence[Part], speeds: Sequence[float], short: bool = False) -> str:
    """For each speed a table with the models side by side, and of each model what is decided.

    Args:
        short: a table alone, of the methods that were measured on all models.
    """
    at = {  # without ours there is nothing to compare with
        speed: {side.title: of for side in sides if OURS in dict((of := side.at(speed)).keys())} for speed in speeds
    }
    names = curve_names(curve for found in at.values() for methods in found.values() for curve in methods)
    several = any("depths=" in name for name in names.values())
    schedules = "; depths: the shares of the layers after which LazyLLM prunes" if several else ""
    texts = []
    for speed, found in at.items():
        columns: dict[str, dict[str, str]] = {}
        for name, methods in found.items():
            most = max(map(len, methods.values()), default=0)
            columns[f"{name} (n={most})"] = {
                names[curve]: format_estimate(divergence(of["fidelity_kl"]), 3)
                + (f" (n={len(of)})" if len(of) < most else "")
                for curve, of in methods.items()
            }
        table = pandas.DataFrame(columns)
        table = (table.dropna() if short else table).fillna("")
        if len(table):
            heading = f"KL in nats at a FLOPs ratio of {speed:g}x, [95% interval]{schedules}"
            said = {} if short else found
            told = [line for name, methods in said.items() if (line := decided(name, methods, names))]
            texts.append("\n".join([f"{heading}:\n", markdown(table.reset_index(names="method")), *told]))
    return "\n\n".join(texts)


def decided(name: str, methods: Methods, names: dict[Pair, str]) -> str:
    """A line: against whom our method's interval lies below 1, above it, or across it; of those below 1 the nearest.
    None where our method has too few samples.
    """
    ours = next((of for curve, of in methods.items() if curve[0] == OURS), None)
    if ours is None or len(ours) < LEAST_SAMPLES or {method for method, _ in methods} == {OURS}:
        return ""
    ratios = {names[curve]: against(ours, of) for curve, of in methods.items() if curve[0] != OURS}
    nearest_first = sorted(ratios.items(), key=lambda rival: -rival[1].value)
    sides: dict[str, list[str]] = {"closer than": [], "further than": [], "undecided against": []}
    for rival, ratio in nearest_first:
        side = "undecided against" if not ratio.excludes(1) else "closer than" if ratio.high < 1 else "further than"
        said = rival if sides[side] and side == "closer than" else f"{rival} {format_estimate(ratio, 2)}"
        sides[side].append(said)
    if len(sides["closer than"]) == len(methods) - 1:
        words = f"closer than all, the nearest {sides['closer than'][0]}"
    else:
        words = "; ".join(f"{side} {', '.join(rivals)}" for side, rivals in sides.items() if rivals)
    return f"- **{name}**: {title(OURS)} (its KL over theirs) is {words}."


def scored(part: Part) -> str:
    """A model's scores of whole answers at each speed; none where the plain model's is at the floor."""
    plain = part.results.samples.query("method == 'baseline'").set_index(["task", "sample_id"])["score"]
    if scores(plain).value < FLOOR:
        return f"{part.title}: the plain model scores {100 * scores(plain).value:.1f}, so no score is shown."
    at = {speed: part.at(speed) for speed in MATCHED[FLOPS]}
    names = curve_names(curve for methods in at.values() for curve in methods)
    columns = {
        f"{speed:g}x": {names[curve]: format_estimate(scores(of["score"]), 1, 100) for curve, of in methods.items()}
        for speed, methods in at.items()
    }
    table = pandas.DataFrame(columns).fillna("").reset_index(names="method")
    said = format_estimate(scores(plain), 1, 100)
    return f"{part.title}; the plain model scores {said}, n={len(plain)}:\n\n{markdown(table)}"


def timed(part: Part) -> str:
    """A model's latency, setting by setting."""
    rows = part.results.summary.query("level == 'task'")
    columns = {"TTFT speedup": "ttft_speedup", "FLOPs ratio": "flops_ratio", "decoding step x": "decode_step_ratio"}
    table = pandas.DataFrame({"method": rows["method"].map(title)})
    table["settings"] = [settings_label(*key) for key in zip(rows["method"], rows["params"], strict=True)]
    for heading, name in {**columns, "overall": "generation_speedup"}.items():
        table[heading] = formatted(rows, name, 2, 1.0, 2)
    return f"{part.title}, n={rows['n'].max()}:\n\n{markdown(table)}"


def which(parts: dict[str, Part]) -> str:
    """A row for each need and model: the least loss, who is not told apart from it, and its setting as measured."""
    rows = [f"| need | model{USUAL} | least KL | `methods=[baseline,SETTING]`, its FLOPs ratio |", "| --- " * 4 + "|"]
    for need in NEEDS:
        asked = [part.only(need.asks) for names in need.parts if (part := fullest(parts, names))]
        found = [cells for part in asked if (cells := _most_right(part) if need.counts else _least_loss(part, need))]
        rows += [f"| {' | '.join(['' if place else need.words, *cells])} |" for place, cells in enumerate(found)]
    return "\n".join(rows) if len(rows) > 2 else ""


def _least_loss(part: Part, need: Need) -> list[str]:
    """The method with the lowest KL without a draft model, or whether a draft pays; nothing where it was not asked."""
    matched, ratio = need.ratio
    methods = {curve: of for curve, of in part.at(ratio, matched).items() if len(of) >= LEAST_SAMPLES}
    without = {curve: of for curve, of in methods.items() if curve[0] != DRAFTED}
    made_for = [curve for curve in methods if curve[0] == need.made_for]
    if not without or (need.made_for and not made_for):
        return []
    curve = next(iter(without))
    n = len(methods[curve])
    if need.made_for == DRAFTED:
        times = against(methods[made_for[0]], methods[curve])
        pays = "undecided" if not times.excludes(1) else "it pays" if times.high < 1 else "it does not pay"
        told, curve = f": {pays} beside {title(curve[0])}", made_for[0]
    else:
        level = _level(methods, curve)
        told = f"; not told apart: {level}" if level else ""
    said = f"{title(curve[0])} {format_estimate(divergence(methods[curve]['fidelity_kl']), 3)}{told}"
    settings = part.settings.query("method_name == @curve[0] and family == @curve[1]").to_dict("records")
    nearest = min(settings, key=lambda row: abs(math.log(row[matched] / ratio)))
    return [f"{part.title.removesuffix(USUAL)} (n={n})", said, _typed(nearest, matched)]


def _level(methods: Methods, best: Pair) -> str:
    """Other methods whose KL is not told apart from the best one's, the closest first."""
    near = [one for one in methods if one != best and not against(methods[one], methods[best]).excludes(1)]
    names = [name for name in dict.fromkeys(title(one[0]) for one in near) if name != title(best[0])]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def closest(parts: Sequence[Part]) -> str:
    """Of each model and speed the method with the lowest KL, and who is not told apart from it."""
    speeds = MATCHED[FLOPS]
    columns: dict[str, list[str]] = {"closest (or level) at": [f"{speed:g}x" for speed in speeds]}
    for part in parts:
        cells = columns[part.title.removesuffix(USUAL)] = []
        for speed in speeds:
            methods = {curve: of for curve, of in part.at(speed).items() if len(of) >= LEAST_SAMPLES}
            best = next(iter(methods), None)
            level = "" if best is None else _level(methods, best)
            cells.append("" if best is None else title(best[0]) + (f" (or {level})" if level else ""))
    return markdown(pandas.DataFrame(columns))


def _most_right(part: Part) -> list[str]:
    """The method with the most right answers, of equals the faster, and the next two."""
    samples = part.results.samples
    right = (samples["score"] >= RIGHT).groupby([samples["method"], samples["params"]]).agg(["sum", "size"])
    settings = part.settings.join(right, on=["method_name", "params"])
    best = settings.sort_values(["sum", "flops_ratio"], ascending=False).drop_duplicates("method_name")
    plain = (samples.drop_duplicates(["task", "sample_id"])["baseline_score"] >= RIGHT).sum()
    rows = best[:3].to_dict("records")
    told = [f"{title(row['method_name'])} {row['sum']} at {row['flops_ratio']:.2f}" for row in rows]
    depths = f"{MIDDLE[0]:.0%} to {MIDDLE[1]:.0%} of the depth"
    of = f"of {rows[0]['size']} found at {depths}, the plain model {plain}"
    return [part.title, f"{', '.join(told)} ({of})", _typed(rows[0], "flops_ratio")]


def _typed(row: dict[Hashable, Any], matched: str) -> str:
    """A row of settings as it is typed, without what is the default, and its ratio."""
    method, whole = row["method_name"], json.loads(row["params"])
    said = {name: value for name, value in whole.items() if value is not None}
    # a draft is a name here
    params = said if method == DRAFTED or build(method, said) == build(method, whole) else whole
    typed = yaml.safe_dump({"method": method, **params}, default_flow_style=True, sort_keys=False, width=math.inf)
    without_spaces = re.sub(r"(?<=[0-9]), (?=[0-9])", ",", typed.strip())
    return f"`{without_spaces}` {row[matched]:.2f}{' (memory)' if matched == MEMORY else ''}"


def fill(page: Path, tables: dict[str, str]) -> str:
    """The page with each table between its marker and the next end; one without a text stays as it was.

    Raises:
        UserError: a marker is missing.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    for name, table in tables.items():
        if not table:
            continue
        before, marker, rest = text.partition(f"<!-- {name} -->\n")
        old, end, after = rest.partition("<!-- end -->")
        if not end or "<!--" in old:
            raise UserError(f"{page} lacks <!-- {name} --> or its <!-- end -->: put both where the table belongs")
        text = f"{before}{marker}\n{table.strip()}\n\n{end}{after}"
    return text


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) not in (1, 2):
        raise UserError("FOLDER [ROOT] are wanted: that of a campaign's files, and that of README.md")
    folder, root = Path(given[0]), Path(given[1] if given[1:] else ".")
    parts = read_parts(folder)
    sides = [part for names in SIDES if (part := fullest(parts, names))]
    others = [part for names in OTHERS if (part := fullest(parts, names))]
    if not sides:
        raise UserError(f"{folder} has none of {', '.join(name for names in SIDES for name in names)} (.parquet)")
    both = {
        what: "\n\n".join(map(table, [part for name, part in parts.items() if name.endswith(f"_{what}")]))
        for what, table in (("scores", scored), ("latency", timed))
    }
    table = which(parts)
    pages = {
        "README.md": {
            "leaderboard": f"{leaderboard(sides, (2.0,), short=True)}\n{closest([*sides, *others])}",
            "which": table,
        },
        "docs/results.md": {"leaderboard": leaderboard([*sides, *others], MATCHED[FLOPS]), **both},
    }
    texts = {root / name: fill(root / name, tables) for name, tables in pages.items()}
    for path, text in texts.items():
        write_atomically(path, text.encode())
    shown = [
        (part.title, part.settings, {curve: divergence(of["fidelity_kl"]) for curve, of in found.items()})
        for part in sides
        if part.settings["n"].max() >= LEAST_SAMPLES and (found := part.at(2.0))
    ]
    figures = {"front": front(shown, 2.0)} if shown else {}
    if (layers := folder / "fig6.parquet").exists():
        (_, _, figures["layers"]), *_ = build_figures(load([layers]), ["fig6"])
    images = root / "docs" / "images"
    for name, figure in figures.items():
        save(figure, images / f"{name}.png")
    print(f"written: {', '.join(map(str, texts))}; in {images}: {', '.join(figures) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
