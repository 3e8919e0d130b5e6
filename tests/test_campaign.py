"""A campaign file holds its runs' records and origin unchanged; reports, leaderboards and verify read it as folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from drawn_records import records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from synthetic_results import made_up_records, write_run

from lazybench.errors import UserError
from lazybench.report.__main__ import main as report
from lazybench.report.results import load
from lazybench.report.verify import main as verify
from lazybench.run.campaign import main, pack
from lazybench.run.reading import find_runs, read_run, read_runs
from lazybench.run.record import Record, from_line

PLAIN = [record for record in made_up_records(2) if record.task == "qasper"]
RECORDS = records(*[st.text(max_size=8)] * 2)  # no table holds half a character


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.key), min_size=1, max_size=3))
def test_records_packed_and_read_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[Record]]
) -> None:
    root = tmp_path_factory.mktemp("packed")
    folders = [write_run(root / f"run{place}", records) for place, records in enumerate(runs)]
    assert pack(folders, root / "all.parquet") == sum(map(len, runs))
    found = read_runs(root / "all.parquet")
    assert [run.records for run in found] == [read_run(folder).records for folder in folders]
    assert [run.records for run in found] == runs
    assert [run.path.name for run in found] == [folder.name for folder in folders]


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs in folders, and as one campaign elsewhere."""
    write_run(tmp_path / "runs" / "one", PLAIN, out="/scratch/someone/one")
    other = [replace(record, model="other") for record in PLAIN]
    settings = {"model": {"name": "other", "chat_format": "none"}, "data": {"root": "/home/someone/data"}}
    write_run(tmp_path / "runs" / "two", other, **settings)
    (tmp_path / "campaign").mkdir()
    out = tmp_path / "campaign" / "mine.parquet"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    return tmp_path / "runs", out


def test_a_campaign_is_reported_as_its_folders_are(
    packed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, campaign = packed
    for name, where in (("folders", folders), ("file", campaign), ("above", campaign.parent)):
        assert report([str(where), "--out", str(tmp_path / name), "--only", "table1"]) == 0
    written = {name: (tmp_path / name / "table.md").read_bytes() for name in ("folders", "file", "above")}
    assert written["folders"] == written["file"] == written["above"]
    assert load([campaign]).summary.equals(load([folders]).summary)
    monkeypatch.chdir(tmp_path)
    before = set(campaign.parent.iterdir())
    assert report([str(campaign), "--only", "table1"]) == 0
    assert (tmp_path / "results" / "report" / "index.html").exists()
    assert set(campaign.parent.iterdir()) - {tmp_path / "results"} == before  # records that may be published stay alone


def test_of_two_records_with_one_key_the_later_counts_as_in_a_folder(packed: tuple[Path, Path]) -> None:
    known = [run.records for run in read_runs(packed[1])]
    rows = parquet.read_table(packed[1])
    better = rows.set_column(rows.schema.get_field_index("score"), "score", pyarrow.array([1.0] * len(rows)))
    parquet.write_table(pyarrow.concat_tables([better, rows]), packed[1])
    assert [run.records for run in read_runs(packed[1])] == known


def test_a_campaign_names_no_folder_of_a_machine(packed: tuple[Path, Path]) -> None:
    text = packed[1].with_suffix(".json").read_text()
    assert "someone" not in text
    assert json.loads(text)["runs"][1]["config"]["data"]["root"] == "data"


def test_a_campaign_is_verified(packed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([str(packed[1])]) == 2  # its data is not at hand
    said = capsys.readouterr().out
    assert "2 runs, what was computed again: 0 match, 0 differ, 2 not checked, or not wholly" in said
    assert f"{packed[1] / 'one'}:" in said


def test_campaigns_and_folders_are_found_together_and_packed_again(packed: tuple[Path, Path], tmp_path: Path) -> None:
    folders, campaign = packed
    assert find_runs(tmp_path) == sorted([campaign, folders / "one", folders / "two"])
    again = tmp_path / "again.parquet"
    pack([campaign], again)
    assert [run.records for run in read_runs(again)] == [run.records for run in read_runs(campaign)]
    (tmp_path / "data.parquet").write_bytes(b"a data set, not a campaign")
    again.unlink()
    assert len(load([tmp_path]).runs) == 4


def test_only_finished_runs_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, PLAIN)
    (tmp_path / "two" / "done").unlink()
    out = tmp_path / "all.parquet"
    assert main([str(tmp_path), "--out", str(out)]) == 2
    assert "two is not finished" in capsys.readouterr().err
    assert not out.exists()
    assert main([str(tmp_path / "one"), "--out", str(out)]) == 0
    assert main([str(tmp_path / "one"), "--out", str(tmp_path / "all.csv")]) == 2
    assert "must end in .parquet" in capsys.readouterr().err
    samples = tmp_path / "two" / "samples.jsonl"
    *kept, torn = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(b"".join(kept))
    whole = [record for record in PLAIN if record.sample_id != from_line(torn).sample_id]
    assert pack([tmp_path / "two"], out, unfinished=True) == len(whole) > 0
    assert [run.records for run in read_runs(out)] == [whole]


@pytest.mark.parametrize(
    "broken", ["no json", "json of no runs", "run of another kind", "bytes", "fewer runs", "column"]
)
def test_a_broken_campaign_is_one_line(broken: str, packed: tuple[Path, Path]) -> None:
    campaign, beside = packed[1], packed[1].with_suffix(".json")
    known = json.loads(beside.read_text())
    if broken == "no json":
        beside.unlink()
    elif broken == "json of no runs":
        beside.write_text("[]")
    elif broken == "run of another kind":
        beside.write_text(json.dumps({"runs": [{**known["runs"][0], "config": {"model": []}}, known["runs"][1]]}))
    elif broken == "bytes":
        campaign.write_bytes(campaign.read_bytes()[:-40])
    elif broken == "fewer runs":
        beside.write_text(json.dumps({"runs": known["runs"][:1]}))
    else:
        from pyarrow import parquet

        table = parquet.read_table(campaign)
        parquet.write_table(table.set_column(table.column_names.index("params"), "params", table["model"]), campaign)
    with pytest.raises(UserError, match="mine"):
        read_runs(campaign)
