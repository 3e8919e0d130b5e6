"""``python -m lazybench.report.published FOLDER``: the tables of README and docs, from the files of a campaign.

FOLDER holds one file of records a part, as ``experiments/campaign.py --pack`` writes them. Each table goes between its
marker, ``<!-- leaderboard -->``, and the next ``<!-- end -->``; the two models' picture to docs/images/front.png. What
no part measured yet stays as it is, and a need without its measurement has no row.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
import yaml

from lazybench.errors import UserError, command
from lazybench.methods import build, title
from lazybench.report.curves import FLOOR, scores
from lazybench.report.figures.style import save
from lazybench.report.figures.tradeoff import front
from lazybench.report.leaderboard import FLOPS, MATCHED, MEMORY
from lazybench.report.parts import OURS, Methods, Part, against, fullest, kl, read_parts
from lazybench.report.statistics import LEAST_SAMPLES, Estimate
from lazybench.report.text import format_estimate, formatted, markdown, settings_label
from lazybench.run.files import write_atomically
from lazybench.run.record import Record

BIGGER = ("qwen_1_5b_1500", "qwen_1_5b_800")
SIDES = (("smollm2_1500",), BIGGER)  # of each model the part with the most records stands for it


@dataclass(frozen=True)
class Need:
    """What somebody wants, and by which samples it is answered."""

    words: str
    parts: tuple[tuple[str, ...], ...] = SIDES
    asks: Callable[[Record], bool] = lambda record: True
    ratio: tuple[str, float] = (FLOPS, 2.0)
    made_for: str = ""  # the method made for it: a part counts where that one was measured too


NEEDS = (
    Need("a long document and a question", asks=lambda record: record.category in ("single_doc_qa", "multi_doc_qa")),
    Need(
        "one fact in the middle",
        (("smollm2_needle",), ("qwen_1_5b_needle",)),
        lambda record: 0.2 <= float(str((record.details or {}).get("depth", 0))) <= 0.8,
        (FLOPS, 1.5),
    ),
    Need("code", asks=lambda record: record.category == "code"),
    Need("only memory", ratio=(MEMORY, 2.0), made_for="snapkv"),
    Need("2x at the least loss"),
    Need("a model with sliding windows", (("gemma_270m_1500",),)),
    Need("a draft model at hand", (BIGGER,), made_for="spec_prefill"),
)


def leaderboard(sides: Sequence[Part], speeds: Sequence[float], short: bool = False) -> str:
    """For each speed a table with the models side by side, and of each model what is decided.

    Args:
        short: only methods that were measured on all models have a row.
    """
    texts = []
    for speed in speeds:
        found = {side.title: methods for side in sides if (methods := side.at(speed))}
        columns: dict[str, dict[str, str]] = {}
        for name, methods in found.items():
            most = max(map(len, methods.values()), default=0)
            columns[f"{name} (n={most})"] = {
                title(method): format_estimate(kl(of), 3) + (f" (n={len(of)})" if len(of) < most else "")
                for method, of in methods.items()
            }
        table = pandas.DataFrame(columns)
        table = (table.dropna() if short else table).fillna("")
        if len(table):
            heading = f"KL in nats at a FLOPs ratio of {speed:g}x, [95% interval]"
            enough = {name: of for name, of in found.items() if len(of) > 1 and len(of.get(OURS, ())) >= LEAST_SAMPLES}
            told = [decided(name, methods) for name, methods in enough.items()]
            texts.append("\n".join([f"{heading}:\n", markdown(table.reset_index(names="method")), *told]))
    return "\n\n".join(texts)


def decided(name: str, methods: Methods) -> str:
    """A line: against whom our method's interval lies below 1, above it, or across it; of those below 1 the nearest."""
    sides: dict[str, dict[str, Estimate]] = {"closer than": {}, "further than": {}, "undecided against": {}}
    for method, samples in methods.items():
        ratio = against(methods[OURS], samples)
        side = "undecided against" if not ratio.excludes(1) else "closer than" if ratio.high < 1 else "further than"
        if method != OURS:
            sides[side][method] = ratio
    said = []
    for side, rivals in sides.items():
        nearest_first = sorted(rivals.items(), key=lambda rival: -rival[1].value)
        names = [
            title(method) + ("" if place and side == "closer than" else f" {format_estimate(ratio, 2)}")
            for place, (method, ratio) in enumerate(nearest_first)
        ]
        said += [f"{side} {', '.join(names)}"] if names else []
    return f"- **{name}**: {title(OURS)} (its KL over theirs, same samples) is {'; '.join(said)}."


def scored(part: Part) -> str:
    """A model's scores of whole answers at each speed; none where the plain model's is at the floor."""
    plain = part.results.samples.query("method == 'baseline'").set_index(["task", "sample_id"])["score"]
    if scores(plain).value < FLOOR:
        return f"{part.title}: the plain model scores {100 * scores(plain).value:.1f}, so no score is shown."
    columns = {
        f"{speed:g}x": {
            title(method): format_estimate(scores(of["score"]), 1, 100) for method, of in part.at(speed).items()
        }
        for speed in MATCHED[FLOPS]
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
        table[heading] = formatted(rows, name, 2)
    return f"{part.title}, n={rows['n'].max()}:\n\n{markdown(table)}"


def which(parts: dict[str, Part]) -> str:
    """A row for each need: the method that is closest on all its models, at its setting nearest to the wanted speed."""
    rows: list[str] = []
    for need in NEEDS:
        matched, ratio = need.ratio
        there = [part.only(need.asks) for names in need.parts if (part := fullest(parts, names))]
        found = [(part, part.at(ratio, matched)) for part in there]
        found = [(part, of) for part, of in found if not need.made_for or need.made_for in of]
        found = [(part, of) for part, of in found if max(map(len, of.values()), default=0) >= LEAST_SAMPLES]
        shared = set.intersection(*(set(of) for _, of in found)) if found else set()
        shared -= {"spec_prefill"} - {need.made_for}
        if not shared:
            continue
        best = min(sorted(shared), key=lambda method: sum(math.log(kl(of[method]).value) for _, of in found))
        level = [
            title(method)
            for method in found[0][1]
            if method in shared - {best} and not any(against(of[best], of[method]).excludes(1) for _, of in found)
        ]
        measured, typed = zip(*(_nearest(part, best, need) for part, _ in found), strict=True)
        name = title(best) + (f"; not told apart: {', '.join(level)}" if level else "")
        rows.append(f"| {need.words} | {name} | {'<br>'.join(measured)} | {'<br>'.join(dict.fromkeys(typed))} |")
    return "\n".join(["| need | method | measured | command |", "| --- | --- | --- | --- |", *rows]) if rows else ""


def _nearest(part: Part, method: str, need: Need) -> tuple[str, str]:
    """What a method's setting nearest to the wanted ratio saves and loses, and how it is typed."""
    column = "flops_ratio" if need.ratio[0] == FLOPS else "memory_ratio"
    settings = part.settings.query("method_name == @method").to_dict("records")
    row = min(settings, key=lambda row: abs(math.log(row[column] / need.ratio[1])))
    loss = format_estimate(Estimate(row["kl"], row["kl_low"], row["kl_high"]), 3)
    saved = f"{row['flops_ratio']:.2f}x" if column == "flops_ratio" else f"{row['memory']:.0%} of the KV cache"
    lost = [f"KL {loss}", f"{row['same_token']:.0%} same tokens"]
    lost += [f"{row['relative_score']:.0%} of the score"] if math.isfinite(row["relative_score"]) else []
    whole = json.loads(row["params"])
    said = {name: value for name, value in whole.items() if value is not None}
    params = said if build(method, said) == build(method, whole) else whole
    params |= {"draft": "FILE"} if "draft" in params else {}
    typed = yaml.safe_dump({"method": method, **params}, default_flow_style=True, sort_keys=False, width=math.inf)
    return (
        f"{part.title}: {saved}, {', '.join(lost)}, n={row['n']}",
        f"`python run.py 'methods=[baseline,{typed.strip()}]'`",
    )


def fill(page: Path, tables: dict[str, str]) -> str:
    """The page with each table between its marker and the next end.

    Raises:
        UserError: a marker is missing.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    for name, table in tables.items():
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
    if not sides:
        raise UserError(f"{folder} has none of {', '.join(name for names in SIDES for name in names)} (.parquet)")
    both = {
        what: "\n\n".join(map(table, [part for name, part in parts.items() if name.endswith(f"_{what}")]))
        for what, table in (("scores", scored), ("latency", timed))
    }
    table = which(parts)
    pages = {
        "README.md": {"leaderboard": leaderboard(sides, (2.0,), short=True), "which": table},
        "docs/results.md": {"leaderboard": leaderboard(sides, MATCHED[FLOPS]), **both},
        "docs/which_one.md": {"which": table},
    }
    for name, tables in pages.items():
        pages[name] = {marker: text for marker, text in tables.items() if text}
    texts = {root / name: fill(root / name, tables) for name, tables in pages.items()}
    for path, text in texts.items():
        write_atomically(path, text.encode())
    shown = [(part.title, part.settings) for part in sides if part.settings["n"].max() >= LEAST_SAMPLES]
    if shown:
        (root / "docs" / "images").mkdir(exist_ok=True)
        save(front(shown), root / "docs" / "images" / "front.png")
    print(f"written: {', '.join(map(str, texts))}" + ", docs/images/front.png" * bool(shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
