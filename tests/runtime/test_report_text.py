"""A report is shown whole in a page: what was done, by whom, how it travelled, what failed."""

import msgspec

from runtime.cli_table import nbytes_text, seconds_text, table
from runtime.host import Gpu, Host
from runtime.report import (
    ConfigReport,
    Failure,
    ItemCounts,
    LinkReport,
    Report,
    UnitCounts,
    WorkerReport,
)
from runtime.report_text import describe_report

REPORT = Report(
    status="done",
    pipeline="interpolate",
    items=ItemCounts(done=3, replayed=1),
    units=UnitCounts(name="frame pairs", done=47),
    wall_s=12.34,
    load_s=3.2,
    run_s=9.0,
    warm_units_per_s=4.1,
    started_at="2025-03-01T10:00:00Z",
    input="/in.mp4",
    output="/out.mp4",
    counts={"frame pairs": 47, "scene cuts": 1},
    weights=("random:0: random weights",),
    warnings=("denoise: GPU 1 is asked for and this host has 1; GPU 0 takes its part",),
    workers=(
        WorkerReport(
            name="denoise/0",
            stages=("denoise",),
            device="cuda:0",
            pid=1,
            items=3,
            busy_s=8.1,
            cpu_user_s=4.0,
            cpu_system_s=0.25,
            max_rss_bytes=900 * 2**20,
            gpu_peak_bytes=3 * 2**30,
            gpu_utilization=0.625,
            restarts=1,
        ),
        WorkerReport(name="write/0", stages=("write",), device="cpu", pid=2, items=3),
    ),
    links=(
        LinkReport(
            sender="read/0",
            receiver="denoise/0",
            transport="host",
            items=3,
            bytes=5 * 2**20,
            wait_s=0.5,
        ),
    ),
    config=ConfigReport(path="c.yaml", sha256="ab"),
    versions={"torch": "2.11.0"},
    host=Host("box", "6.1", "3.11.7", 2, 10**9, (Gpu(0, "GPU-1", "H200", 9, 8),)),
)


def test_a_whole_report_is_a_page():
    assert describe_report(REPORT) == (
        "status    done\n"
        "pipeline  interpolate (c.yaml)\n"
        "started   2025-03-01T10:00:00Z\n"
        "time      12.3 s: 3.2 s until the first item, 9.0 s from then on\n"
        "input     /in.mp4\n"
        "output    /out.mp4\n"
        "done      47 frame pairs, 4.1 a second after the first item\n"
        "items     3 done, 0 failed, 1 replayed\n"
        "counted   1 scene cut\n"
        "host      box: 2 cores, 1 x H200\n"
        "versions  torch 2.11.0\n"
        "weights   random:0: random weights\n"
        "warning   denoise: GPU 1 is asked for and this host has 1; GPU 0 takes its part\n"
        "\n"
        "worker     device  items  busy  CPU user  CPU system   memory"
        "   GPU  GPU memory  restarts\n"
        "denoise/0  cuda:0      3  90 %     4.0 s       0.2 s  900 MiB"
        "  62 %     3.0 GiB         1\n"
        "write/0    cpu         3   0 %     0.0 s       0.0 s        -"
        "     -           -         0\n"
        "\n"
        "link                 transport  items    bytes  waited\n"
        "read/0 -> denoise/0  host           3  5.0 MiB   0.5 s"
    )


def test_failures_are_told_with_their_place_and_their_traceback():
    failures = (
        Failure(
            reason="ValueError: x", item=0, stage="decode", worker="decode/0", traceback="a\nb"
        ),
        Failure(reason="the disk is full"),
    )
    text = describe_report(msgspec.structs.replace(REPORT, status="failed", failures=failures))
    assert text.startswith("status    failed\n")
    assert text.endswith(
        "\n\nfailures\n"
        "  item 0, stage decode, worker decode/0: ValueError: x\n"
        "    a\n"
        "    b\n"
        "  the disk is full"
    )


def test_a_run_that_never_began_has_a_report_too():
    empty = Report(
        status="interrupted",
        pipeline="p",
        items=ItemCounts(done=0),
        units=UnitCounts(name="frame pairs", done=0),
    )
    assert describe_report(empty).splitlines()[0] == "status    interrupted"


def test_columns_are_as_wide_as_what_is_in_them():
    assert table(["a", "bytes"], [["xyz", "1"], ["", "10"]], right="bytes") == [
        "a    bytes",
        "xyz      1",
        "        10",
    ]


def test_numbers_have_units_that_people_read():
    assert [nbytes_text(n) for n in (0, 999, 2**20, 150 * 2**20, 1500 * 2**30)] == [
        "0 bytes",
        "999 bytes",
        "1.0 MiB",
        "150 MiB",
        "1.5 TiB",
    ]
    assert [seconds_text(s) for s in (0.04, 99.94, 125, 11_000)] == [
        "0.0 s",
        "99.9 s",
        "2 min 5 s",
        "3 h 3 min",
    ]
