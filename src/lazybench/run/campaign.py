"""``python -m lazybench pack FOLDER... --out FILE``: finished runs as one file of records and one of their origin.

``NAME.parquet``  a row a record, its fields as columns (``params`` and ``details`` as JSON texts); ``run``: its number
``NAME.json``     of each run its folder's name, configuration and provenance

Reports, leaderboards and ``verify`` take a campaign file where they take a run folder.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from lazybench.errors import Parser, UserError, command
from lazybench.pruning.settings import path_of
from lazybench.run.files import without_folders, write_atomically
from lazybench.run.reading import JSON_TEXT, find_runs, read_runs
from lazybench.run.record import Record, to_line

if TYPE_CHECKING:
    import pyarrow


def pack(folders: Sequence[Path], out: Path, unfinished: bool = False) -> int:
    """Write the campaign of all runs at or below the folders; paths of this machine are left out.

    Args:
        unfinished: of a run that was stopped, take the samples that all its methods have, instead of refusing it.

    Returns:
        the number of records.

    Raises:
        UserError: no run, one that is not finished or cannot be read, or a file that can't be written.
    """
    import pyarrow
    from pyarrow import parquet

    if out.suffix != ".parquet":
        raise UserError(f"--out {out} must end in .parquet")
    runs = [run for path in find_runs(*folders) if path != out for run in read_runs(path)]
    if (stopped := [str(run.path) for run in runs if not run.finished]) and not unfinished:
        raise UserError(
            f"{', '.join(stopped)} is not finished: give its command again, or name the other folders alone"
        )
    rows = []
    for number, run in enumerate(runs):
        of_sample = Counter((record.task, record.sample_id) for record in run.records)
        most = max(of_sample.values(), default=0)
        for record in run.records:
            if not run.finished and of_sample[record.task, record.sample_id] < most:
                continue
            row = json.loads(to_line(record))
            row.update({name: row[name] if row[name] is None else json.dumps(row[name]) for name in JSON_TEXT})
            rows.append({"run": number, **row})
    try:
        table = pyarrow.Table.from_pylist(rows, _schema())
    except pyarrow.ArrowException as error:
        raise UserError(f"a record cannot be packed: {' '.join(str(error).split())}") from error
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd", compression_level=19)
    facts = [
        {"name": run.path.name, "config": without_folders(run.config), "provenance": without_folders(run.provenance)}
        for run in runs
    ]
    text = json.dumps({"runs": facts}, indent=1, default=str) + "\n"
    write_atomically(out.with_suffix(".json"), text.encode())
    write_atomically(out, buffer.getvalue())
    return len(rows)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = Parser("python -m lazybench pack", __doc__)
    parser.add_argument("folders", type=path_of, nargs="+", metavar="FOLDER", help="finished runs, at any depth")
    parser.add_argument("--out", type=path_of, required=True, metavar="FILE", help="NAME.parquet; NAME.json beside it")
    options = parser.parse_args(arguments)
    count = pack(options.folders, options.out)
    print(f"{count} records: {options.out}, {options.out.with_suffix('.json')}")
    return 0


def _schema() -> pyarrow.Schema:
    """A record's fields by their annotations, JSON texts aside."""
    import pyarrow

    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}

    def kind_of(hint: Any) -> pyarrow.DataType:
        if get_origin(hint) is UnionType:
            return kind_of(next(one for one in get_args(hint) if one is not type(None)))
        if get_origin(hint) is tuple:
            return pyarrow.list_(kind_of(get_args(hint)[0]))
        return kinds[hint]

    columns = {name: hint for name, hint in get_type_hints(Record).items() if name not in JSON_TEXT}
    columns |= dict.fromkeys(JSON_TEXT, str)
    return pyarrow.schema([("run", pyarrow.int32()), *((name, kind_of(hint)) for name, hint in columns.items())])
