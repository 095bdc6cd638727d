"""A report is written whole, read again, and told in one line; a fingerprint names what changed."""

import json
import os
import subprocess
import sys

import msgspec
import pytest

from runtime.errors import RunpipeError
from runtime.fingerprint import (
    PROJECT,
    basis,
    code_sha256,
    file_identity,
    fingerprint,
    fingerprint_changes,
    versions,
)
from runtime.host import Gpu, Host
from runtime.report import (
    ConfigReport,
    Failure,
    ItemCounts,
    LinkReport,
    Report,
    UnitCounts,
    WorkerReport,
    load_report,
    summary_line,
    write_report,
)

REPORT = Report(
    status="done",
    pipeline="interpolate",
    items=ItemCounts(done=3),
    units=UnitCounts(name="frame pairs", done=47),
    wall_s=12.34,
    load_s=3.2,
    run_s=9.0,
    warm_units_per_s=4.1,
    started_at="2025-03-01T10:00:00Z",
    ended_at="2025-03-01T10:00:12Z",
    output="out.mp4",
    counts={"frame pairs": 47, "scene cuts": 1},
    workers=(WorkerReport(name="denoise/0", stages=("denoise",), device="cuda:1", pid=1, items=3),),
    links=(LinkReport(sender="read/0", receiver="denoise/0", transport="host", items=3, bytes=9),),
    fingerprint={"seed": 0},
    config=ConfigReport(path="c.yaml", sha256="ab"),
    host=Host("h", "6.1", "3.11.7", 2, 10**9, (Gpu(0, "GPU-1", "H200", 9, 8),)),
)

# the frozen names, as others read them
NAMES = {
    "": """status pipeline items units wall_s load_s run_s warm_units_per_s fingerprint output
        warnings failures workers links""",
    "items": "done failed replayed",
    "units": "name done failed",
    "failures": "item reason",
    "workers": """name stages device pid items busy_s cpu_user_s cpu_system_s max_rss_bytes
        gpu_peak_bytes restarts""",
    "links": "from to transport items bytes wait_s",
}


def changed(**kwargs):
    return msgspec.structs.replace(REPORT, **kwargs)


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = changed(failures=(Failure(reason="ValueError: x", item=1, stage="decode"),))
    write_report(tmp_path / "report.json", report)
    assert load_report(tmp_path / "report.json") == report
    assert os.listdir(tmp_path) == ["report.json"]


def test_the_frozen_names_are_there():
    report = changed(failures=(Failure(reason="x", item=1),))
    data = json.loads(msgspec.json.encode(report))
    for part, names in NAMES.items():
        record = data[part] if part else data
        record = record[0] if isinstance(record, list) else record
        assert set(names.split()) <= record.keys(), part


def test_a_report_of_a_later_version_is_read(tmp_path):
    data = json.loads(msgspec.json.encode(REPORT)) | {"later": 1}
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert load_report(tmp_path / "report.json") == REPORT


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "no report: No such file"), ("", "is no report"), ('{"status": "ok"}', "is no report")],
)
def test_what_is_no_report_is_said(tmp_path, text, reason):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunpipeError, match=reason) as caught:
        load_report(path)
    assert str(caught.value).startswith(str(path))


def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_report(path, REPORT)

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_report(path, changed(status="failed"))
    monkeypatch.undo()
    assert load_report(path) == REPORT
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (
            REPORT,
            "47 frame pairs in 12.3 s (4.1 a second after loading in 3.2 s) -> out.mp4; "
            "1 scene cut repeated",
        ),
        (
            changed(units=UnitCounts(name="frame pairs", done=1), counts={"scene cuts": 0}),
            "1 frame pair in 12.3 s (4.1 a second after loading in 3.2 s) -> out.mp4",
        ),
        (
            changed(
                items=ItemCounts(done=3, replayed=2),
                counts={},
                workers=(msgspec.structs.replace(REPORT.workers[0], restarts=1),),
            ),
            "47 frame pairs in 12.3 s (4.1 a second after loading in 3.2 s) -> out.mp4; "
            "2 items replayed after 1 restart",
        ),
        (
            changed(
                status="failed",
                counts={},
                units=UnitCounts(name="frame pairs", done=45, failed=2),
                failures=(Failure(item=1, reason="ValueError: x"),),
            ),
            "failed after 45 frame pairs in 12.3 s (4.1 a second after loading in 3.2 s) "
            "-> out.mp4; 2 frame pairs failed; ValueError: x",
        ),
        (
            changed(status="interrupted", counts={}),
            "interrupted after 47 frame pairs in 12.3 s (4.1 a second after loading in 3.2 s)",
        ),
    ],
)
def test_a_run_is_told_in_one_line(report, line):
    assert summary_line(report) == line


def make_fingerprint(path, **kwargs):
    known = basis(
        config_text="a: 1",
        settings={"a": 1},
        source=str(path),
        output="out.mp4",
        inputs=[path, "random:0"],
        stages={"mine": "k3"},
        seed=kwargs.pop("seed", 0),
    )
    given = {
        "threads": {"encode/0": 1},
        "devices": {"encode/0": "cpu"},
        "shapes": {"encode.latents": (2, 16)},
        "work": {"num_items": 3},
    }
    return fingerprint(known, **given | kwargs)


def test_a_fingerprint_survives_json_and_is_the_same_twice(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x" * 3_000_000)
    found = make_fingerprint(path)
    assert json.loads(json.dumps(found)) == found
    assert fingerprint_changes(found, make_fingerprint(path)) == []
    assert found["inputs"]["random:0"] == {}
    assert found["inputs"][str(path)]["bytes"] == 3_000_000


def test_a_fingerprint_names_what_changed(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x")
    before = make_fingerprint(path)
    now = make_fingerprint(path, seed=1, threads={"encode/0": 2, "decode/0": 1})
    assert fingerprint_changes(before, now) == [
        "seed: 0 -> 1",
        "threads.decode/0: nothing -> 1",
        "threads.encode/0: 1 -> 2",
    ]


@pytest.mark.parametrize("at", [0, 2_500_000])
def test_a_byte_at_either_end_of_a_file_is_seen(tmp_path, at):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x" * 3_000_000)
    stat, before = path.stat(), file_identity(path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"y")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (change,) = fingerprint_changes(before, file_identity(path))
    assert change.startswith("ends_sha256: ")


def test_code_counts_in_any_of_our_folders(tmp_path):
    (tmp_path / "stages/eden").mkdir(parents=True)
    hashes = {code_sha256(tmp_path)}
    for name in ("a.py", "b.py"):
        (tmp_path / "stages/eden" / name).write_text("x = 1")
        hashes.add(code_sha256(tmp_path))
    (tmp_path / "stages/eden/notes.txt").write_text("no code")
    hashes.add(code_sha256(tmp_path))
    assert len(hashes) == 3
    assert (PROJECT / "runtime").is_dir()


def test_versions_are_known_without_importing_anything_large():
    assert versions()["python"].startswith("3.")
    assert "msgspec" in versions()


LIGHT = ("config", "errors", "host", "journal", "report", "logs", "fingerprint")


def test_none_of_this_imports_a_large_library():
    code = f"import sys, {', '.join(f'runtime.{name}' for name in LIGHT)}\n"
    code += "assert not {'torch', 'numpy', 'zmq', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
