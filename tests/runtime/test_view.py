"""What a run looks like, line by line, without a run."""

import re
from itertools import pairwise

import pytest

from ipc.messages import Heartbeat
from ipc.records import JobUsage
from runtime.live import JOINING, LOADING, RUNNING, STARTING, STOPPING, Snapshot, WorkerNow
from runtime.view import ENOUGH, MEAN_S, Part, RunView, columns, fitting, plain_line, rate
from runtime.view_rich import drawn

NAMES = ("read/0", "encode/0", "denoise/0", "decode/0", "write/0")


def beat(name, *, items=0, busy_s=0.0, item=-1, running_s=0.0, progress=0.0, here=0, waits=""):
    return Heartbeat(
        sender=name,
        incarnation=0,
        item=item,
        attempt=0,
        running_s=running_s,
        progress=progress,
        num_here=here,
        waits_for=waits,
        usage=JobUsage(items=items, busy_s=busy_s),
    )


def worker(name, *, device="cpu", gpu_use=None, **heart):
    one = beat(name, **heart) if heart else None
    return WorkerNow(name=name, device=device, gpu_use=gpu_use, beat=one)


def snapshot(at, workers, *, phase=RUNNING, done=0, failed=0, num_units=59):
    return Snapshot(
        at=at,
        elapsed_s=at,
        phase=phase,
        unit="frame pairs" if num_units else "",
        num_units=num_units,
        units_done=done,
        items_failed=failed,
        workers=tuple(workers),
    )


def at_work(at):
    """Return a run of which denoise is the slow part, `at` seconds after it began."""
    gpu = {"device": "cuda:0", "gpu_use": 0.87}
    items = int(at * 2)
    running = {"item": items, "running_s": 3.2, "progress": 0.4}
    return snapshot(
        at,
        [
            worker("read/0", items=items + 4, busy_s=0.1 * at, here=0, waits="a free slot"),
            worker("encode/0", items=items + 4, busy_s=0.2 * at, here=1, waits="read", **gpu),
            worker("denoise/0", items=items, busy_s=at, here=3, **running, **gpu),
            worker("decode/0", items=items, busy_s=0.3 * at, waits="denoise", **gpu),
            worker("write/0", items=items, busy_s=0.02 * at, here=2, waits=f"item {items}"),
        ],
        done=2 * items,
        failed=1,
    )


@pytest.fixture
def history():
    return [at_work(second) for second in (0, 5, 10)]


def seen(history, width, height=24):
    """Return the picture without its colours."""
    lines = drawn(history, width=width, height=height)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


WIDE = """\
worker     device  items  in flight  items/s   busy   GPU  now
read/0     cpu        24          0      2.0   10 %     -  waits for a free slot
encode/0   cuda:0     24          1      2.0   20 %  87 %  waits for read
denoise/0  cuda:0     20          3      2.0  100 %  87 %  item 20, 40 %, 3 s
decode/0   cuda:0     20          0      2.0   30 %  87 %  waits for denoise
write/0    cpu        20          2      2.0    2 %     -  waits for item 20
40/59 frame pairs, 4.0 a second, 5 s left, 10 s so far, 1 item failed
"""
USUAL = WIDE
NARROW = """\
worker      busy  now
read/0      10 %  waits for a free slot
encode/0    20 %  waits for read
denoise/0  100 %  item 20, 40 %, 3 s
decode/0    30 %  waits for denoise
write/0      2 %  waits for item 20
40/59 frame pairs, 1 item failed
"""


@pytest.mark.parametrize(("width", "text"), [(120, WIDE), (80, USUAL), (40, NARROW)])
def test_a_row_for_each_worker_and_the_whole_below(history, width, text):
    assert "\n".join(seen(history, width)) + "\n" == text


def test_columns_give_way_one_after_the_other(history):
    heads = [seen(history, width)[0].split("  ") for width in range(120, 20, -1)]
    order = [tuple(word.strip() for word in head if word) for head in heads]
    assert list(dict.fromkeys(len(head) for head in order)) == [8, 7, 6, 5, 4, 3, 2]
    dropped = [set(a) - set(b) for a, b in pairwise(order) if len(a) > len(b)]
    assert dropped == [{"GPU"}, {"device"}, {"in flight"}, {"items/s"}, {"items"}, {"busy"}]


@pytest.mark.parametrize("width", [1, 5, 9, 12, 39, 79, 119])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 6, 7])
def test_a_picture_never_is_larger_than_the_terminal(history, width, height):
    lines = seen(history, width, height)
    assert 1 <= len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1] == "40/59 frame pairs, 1 item failed"[:width].rstrip() or width > 40


def test_more_workers_than_rows_are_counted():
    run = [snapshot(0, [worker(f"encode/{n}", items=n) for n in range(20)])]
    lines = seen(run, 80, 8)
    assert [line.split()[0] for line in lines] == [
        "worker",
        *(f"encode/{n}" for n in range(5)),
        "and",
        "0/59",
    ]
    assert lines[-2] == "and 15 more workers"
    assert len(seen(run, 80, 22)) == 22
    assert not any("more workers" in line for line in seen(run, 80, 22))


def test_no_gpu_no_column_for_it():
    assert "GPU" not in seen([snapshot(0, [worker("read/0", items=1)])], 120)[0]


def test_without_heartbeats_there_still_are_rows():
    lines = seen([snapshot(4, [worker("read/0")], phase=STARTING, num_units=0)], 120)
    assert lines[1].split() == ["read/0", "cpu", "-", "-", "-", "-", "starting"]
    assert lines[2] == "starting, 4 s so far"


def test_it_is_told_who_still_loads():
    workers = [
        worker("read/0", waits="the other workers"),
        worker("encode/0", waits=""),
        worker("denoise/0", waits=""),
    ]
    lines = seen([snapshot(14, workers, phase=LOADING, num_units=0)], 80)
    assert [line.split("  ")[-1].strip() for line in lines[1:-1]] == [
        "ready",
        "loading weights",
        "loading weights",
    ]
    assert lines[-1] == "loading weights: encode/0, denoise/0, 14 s so far"


def test_it_is_told_who_joins_the_output_and_that_workers_are_stopped():
    workers = [worker("read/0", items=9, waits="a free slot"), worker("write/0", items=9, waits="")]
    lines = seen([snapshot(at, workers, phase=JOINING, done=59) for at in (29, 30)], 80)
    assert lines[1].split()[:6] == ["read/0", "cpu", "9", "0", "-", "-"], "no rates any more"
    assert lines[1].endswith("  done")
    assert lines[2].endswith("  joining the output")
    assert lines[3] == "59/59 frame pairs, joining the output: write/0, 30 s so far"
    assert seen([snapshot(31, workers, phase=STOPPING, done=59)], 80)[-1] == (
        "59/59 frame pairs, stopping, 31 s so far"
    )


def test_a_plain_line_names_the_busiest_and_the_idlest(history):
    assert plain_line(history) == (
        "40/59 frame pairs, 4.0 a second, 5 s left, 10 s so far, 1 item failed; "
        "denoise/0 is 100 % busy, write/0 2 %: waits for item 20"
    )
    assert plain_line(history[:1]) == "0/59 frame pairs, 0 s so far, 1 item failed"


def test_names_are_no_markup():
    workers = [worker("[bold]read/0", items=1, waits="[red]")]
    assert seen([snapshot(0, workers)], 80)[1].startswith("[bold]read/0")
    assert seen([snapshot(0, workers)], 80)[1].endswith("waits for [red]")


def test_no_color_is_obeyed(history, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    red = re.compile(r"\x1b\[(?:\d+;)*3\d")
    assert red.search("".join(drawn(history, width=120, height=24)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not red.search("".join(drawn(history, width=120, height=24)))


@pytest.mark.parametrize(
    ("counts", "enough", "expected"),
    [
        ([], 0, None),
        ([(0, 5)], 0, None),
        ([(0, 0), (5, 10)], 0, 2.0),
        ([(t, t) for t in range(40)] + [(40, 39 + 11)], 0, (50 - 30) / 10),
        ([(0, 0), (30, 1), (45, 1), (60, 2)], 0, 1 / 15),
        ([(0, 0), (30, 1), (45, 1), (60, 2)], 2, 2 / 60),
        ([(0, 100), (5, 110), (6, 0), (8, 4)], 0, 2.0),
        ([(0, 7), (20, 7)], ENOUGH, 0.0),
    ],
    ids=["empty", "one", "two", "recent", "rare", "rare enough", "another job", "still"],
)
def test_a_rate_is_of_the_last_seconds(counts, enough, expected):
    assert MEAN_S == 10.0
    assert rate(counts, enough=enough) == expected


def test_a_share_is_never_more_than_all():
    run = [snapshot(t, [worker("denoise/0", items=0, busy_s=b)]) for t, b in ((0, 0.0), (5, 5.4))]
    busy = next(column for column in columns(run) if column.head == "busy")
    assert busy.cells == ("100 %",)


def test_parts_that_do_not_matter_give_way_first():
    parts = [Part("a" * 5, 0), Part("b" * 5, 2), Part("c" * 5, 1), Part("d" * 5, 0)]
    texts = [[part.text[0] for part in fitting(parts, width)] for width in (26, 25, 18, 12, 3)]
    assert texts == [list("abcd"), list("acd"), list("ad"), list("ad"), list("ad")]


class Shown:
    """A run whose snapshots are made up."""

    def __init__(self, snapshots):
        self._snapshots = iter(snapshots)

    def snapshot(self):
        return next(self._snapshots)


def test_rates_begin_anew_with_each_phase():
    loading = [snapshot(t, [], phase=LOADING, num_units=0) for t in range(9)]
    view = RunView(Shown([*loading, snapshot(9, []), snapshot(10, [], done=4)]))
    for _ in range(11):
        view.look()
    assert view.line() == "4/59 frame pairs, 4.0 a second, 14 s left, 10 s so far"


def test_what_is_long_past_is_forgotten():
    view = RunView(Shown(snapshot(t, [], done=1 if t else 0) for t in range(200)))
    for _ in range(200):
        view.look()
    assert view.line() == "1/59 frame pairs, 3 min 19 s so far"
