"""CSV files that a training writes itself: drawn as they grow, whatever is in them."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import metrics_files
from engine.metrics_files import MetricsFiles

LATER = 100.0  # seconds: a file is settled then


def curves(files: MetricsFiles) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {t.name: {n: list(zip(c.xs, c.ys, strict=True)) for n, c in t.curves.items()} for t in files.tables}


def look(files: MetricsFiles, later: float = LATER) -> bool:
    return files.look(time.time() + later)


def test_each_further_column_is_a_curve_and_grows_with_its_file(tmp_path: Path) -> None:
    file, files = tmp_path / "distance.csv", MetricsFiles(tmp_path)
    assert not look(files) and files.tables == ()
    file.write_text("epoch,ants,bees\n1,0.5,0.25\n2,0.4,")
    assert look(files, 0) and curves(files) == {"distance": {"ants": [(1, 0.5)], "bees": [(1, 0.25)]}}
    assert files.tables[0].x == "epoch"
    with file.open("a") as f:
        f.write("0.125\n3,0.3,0.06")
    assert look(files, 0) and curves(files)["distance"]["bees"] == [(1, 0.25), (2, 0.125)]
    shown = files.tables
    assert look(files) and curves(files)["distance"]["bees"][-1] == (3, 0.06)  # nobody will end that line
    assert len(shown[0].curves["bees"]) == 2  # what a screen draws does not change under it
    assert not look(files)
    file.unlink()
    assert look(files) and files.tables == ()


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    file, files = tmp_path / "a.csv", MetricsFiles(tmp_path)
    file.write_text("x,y\n1,1\n2,2\n3,3\n")
    look(files)
    file.write_text("x,y\n1,9\n")
    assert look(files) and curves(files) == {"a": {"y": [(1, 9)]}}
    replaced = tmp_path / "new"
    replaced.write_text("x,z\n1,9\n2,8\n5,5\n")
    replaced.rename(file)
    assert look(files) and curves(files) == {"a": {"z": [(1, 9), (2, 8), (5, 5)]}}


def test_ragged_rows_and_what_is_no_number_are_gaps(tmp_path: Path) -> None:
    text = "\ufeffstep, a ,\x1b[2Jb,,a\r\n1,nan,inf,3\r\n\r\n2,1e999\n0,7,7\nx,1,1\n3,,'=1+1',4,5,6,7\n4,1,\"2\",3,9\n"
    (tmp_path / "r.CSV").write_text(text)
    files = MetricsFiles(tmp_path)
    look(files)
    (table,) = files.tables
    assert table.x == "step" and list(table.curves) == ["a", "[2Jb", "column 4", "a (5)"]
    assert list(table.curves["a"].xs) == [1, 2, 3, 4]
    assert [None if math.isnan(y) else y for y in table.curves["column 4"].ys] == [3, None, 4, 3]
    assert [None if math.isnan(y) else y for y in table.curves["[2Jb"].ys] == [None, None, None, 2]


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("/etc/passwd")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    (tmp_path / "notes.txt").write_text("x,y\n1,2\n")
    files = MetricsFiles(tmp_path)
    began = time.monotonic()
    look(files)
    assert files.tables == () and time.monotonic() - began < 1


def test_what_is_too_much_is_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_files, "MOST_POINTS", 1000)
    with (tmp_path / "long.csv").open("w") as f:
        f.write("x," + ",".join(f"c{i}" for i in range(50)) + "\n")
        f.writelines(f"{i},{i}\n" for i in range(100_000))
        f.write("9" * (1 << 20) + "\n" + '100001,"unended\n')
    files = MetricsFiles(tmp_path)
    while look(files):
        pass
    (table,) = files.tables
    assert len(table.curves) == metrics_files.MOST_CURVES
    points = table.curves["c0"]
    assert 500 <= len(points) <= 1000 and points.xs[-1] > 99_000 and list(points.xs) == list(points.ys)
    for i in range(40):
        (tmp_path / f"many{i:02}.csv").write_text("x,y\n1,1\n")
    look(files)
    assert len(files.tables) == metrics_files.MOST_FILES


@given(st.binary(max_size=400))
def test_nothing_in_a_file_breaks_it(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = MetricsFiles(Path(folder))
        (Path(folder) / "a.csv").write_bytes(b"x,y\n1,1\n" + data)
        look(files)
        for table in files.tables:
            for curve in table.curves.values():
                assert list(curve.xs) == sorted(set(curve.xs)) and len(curve.xs) == len(curve.ys)
