"""How a cell of the kill matrix is judged by what it leaves."""

import dataclasses

import pytest

from ipc.records import FileSum
from runtime.journal import DurableRow, Journal
from runtime.report import Failure, ItemCounts, Report, UnitCounts, write_report
from tests.stages.video.clips import planes, write_clip
from tools.kill_cells import LAST, MIDDLE, NUM_ITEMS, Cell
from tools.kill_judge import Reference, frames_of, judge
from tools.kill_run import Place, Ran

FRAMES = 2 * NUM_ITEMS + 1
TICKS = 512  # between two pictures of a clip


@pytest.fixture
def place(tmp_path):
    """Return the place of a cell that went as it should: journal, report, log and output."""
    made = Place(tmp_path / "cell")
    made.run_dir.mkdir()
    write_clip(made.output, FRAMES, options={"crf": "0"})
    record(made, *([item] for item in range(NUM_ITEMS)))
    report(made)
    log(made, 0.5)
    return made


def record(place, *rows):
    path = place.run_dir / "journal.sqlite"
    path.unlink(missing_ok=True)
    with Journal.create(path, {}) as journal:
        for items in rows:
            files = (FileSum(path=f"{items[0]}", bytes=0, sha256=""),)
            row = DurableRow(items=items, attempts=(0,) * len(items), files=files, counts={})
            journal.record(row)


def report(place, *failed):
    failures = tuple(Failure(reason="no", item=item) for item in failed)
    counts = ItemCounts(done=NUM_ITEMS - len(failed), failed=len(failed))
    units = UnitCounts(name="frame pairs", done=counts.done)
    made = Report(status="done", pipeline="x", items=counts, units=units, failures=failures)
    write_report(place.run_dir / "report.json", made)


def log(place, took_s):
    (place.run_dir / "logs").mkdir(exist_ok=True)
    line = f"restarted worker=read/0 incarnation=1 load_s=9.0 took_s={took_s}\n"
    (place.run_dir / "logs" / "supervisor.log").write_text(line)


KILLED = Cell("read", "SIGKILL", "middle")
GOOD = Ran(codes=(0,), wall_s=1.0, has_struck=True, left=(), stderr="")


def reference_of(place):
    return Reference(frames_of(place.output), place.files())


def judged(place, cell=KILLED, reference=None, **changes):
    ran = dataclasses.replace(GOOD, **changes)
    return judge(cell, place, ran, reference or reference_of(place), "sources")


def test_what_went_as_it_should_has_no_problems(place):
    result = judged(place)
    assert result.problems == ()
    assert (result.lost, result.twice, result.equal, result.recovery_s) == (0, 0, True, 0.5)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"codes": (1,)}, "exit codes [1], expected [0]"),
        ({"codes": (None,)}, "exit codes [None]"),
        ({"has_struck": False}, "what was ordered has not happened"),
        ({"left": ("process 7",)}, "left behind: process 7"),
    ],
)
def test_how_it_went_is_judged(place, change, problem):
    assert problem in judged(place, **change).problems[0]


def test_a_lost_item_and_one_that_came_twice_are_counted(place):
    record(place, *([item] for item in range(NUM_ITEMS - 1)), [3])
    result = judged(place)
    assert (result.lost, result.twice) == (1, 1)
    assert {"1 items lost", "1 items twice"} <= set(result.problems)


def test_a_slow_recovery_and_none_at_all_are_problems(place):
    log(place, 2.1)
    assert judged(place).problems == ("recovered in 2.1 s, expected 2.0 at most",)
    (place.run_dir / "logs" / "supervisor.log").write_text("")
    assert judged(place).problems == ("no recovery in the log",)


def test_files_that_no_undisturbed_run_leaves_are_left_behind(place):
    reference = reference_of(place)
    (place.output.parent / ".out.mp4.part").touch()
    (place.run_dir / "segments").mkdir()
    (place.run_dir / "segments" / "000003.part").touch()
    result = judged(place, reference=reference)
    assert set(result.left) == {"file out/.out.mp4.part", "file run/segments/000003.part"}


def test_one_other_picture_is_not_equal_and_the_control_wants_it_so(place):
    reference = reference_of(place)
    control = Cell("control", "attempt", "middle")
    assert judged(place, control, reference).problems == ("bytes are equal",)

    def with_one_other_sample(number, size, pix_fmt):
        frame = planes(number, size, pix_fmt)
        if number == MIDDLE:
            memoryview(frame.planes[0])[100] ^= 1
        return frame

    write_clip(place.output, FRAMES, options={"crf": "0"}, picture=with_one_other_sample)
    assert judged(place, reference=reference).problems == ("bytes differ",)
    assert judged(place, control, reference).problems == ()


@pytest.mark.parametrize(
    ("victim", "moment", "item", "missing"),
    [
        ("denoise", "middle", MIDDLE, {2 * MIDDLE + 1}),
        ("read", "middle", MIDDLE, {2 * MIDDLE, 2 * MIDDLE + 1}),
        ("read", "last", LAST, {2 * LAST, 2 * LAST + 1, 2 * LAST + 2}),
    ],
)
def test_one_failed_item_leaves_out_its_frames_and_no_others(place, victim, moment, item, missing):
    reference = reference_of(place)
    cell = Cell(victim, "run", moment)
    report(place, item)
    assert judged(place, cell, reference, codes=(1,)).problems == ("bytes differ",)
    kept = [number for number in range(FRAMES) if number not in missing]
    write_clip(
        place.output,
        len(kept),
        options={"crf": "0"},
        pts=[TICKS * number for number in kept],
        picture=lambda n, size, pix_fmt: planes(kept[n], size, pix_fmt),
    )
    assert judged(place, cell, reference, codes=(1,)).problems == ()
    report(place, item, item - 1)
    assert "failed items" in judged(place, cell, reference, codes=(1,)).problems[0]
