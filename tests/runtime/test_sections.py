"""Pipelines in sections: each side of a durable sink has items and a window of its own."""

import json
import os
import signal
import threading
import time

import pytest

from runtime.chain import Chain
from runtime.config import parse_config
from runtime.errors import ConfigError, RunIncomplete, RunInterrupted, StageFailed
from runtime.report import load_report
from tests.waiting import wait_until


def config(tmp_path, **changes):
    stages = {
        "read": {"use": "tests.fakes:Numbers"},
        "add": {"use": "tests.fakes:Add"},
        "keep": {"use": "tests.section_fakes:Keeps", "output": "kept.json"},
        "gather": {"use": "tests.section_fakes:GroupsThatWait"},
        "sum": {"use": "tests.fakes:Add"},
        "write": {"use": "tests.fakes:Lines", "output": "sums.txt", "with": {"per_segment": 1}},
    }
    run = changes.pop("run", {})
    for name, change in changes.items():
        stages[name] = {**stages[name], **change}
    (tmp_path / "in.txt").write_text("8")
    return parse_config({"pipeline": "sectioned", "stages": stages, "run": run})


def run(chain, tmp_path, **options):
    (tmp_path / "in.txt").write_text("8")
    return chain.run(
        input=tmp_path / "in.txt", output=tmp_path / "out", run_dir=tmp_path / "run", **options
    )


def expected(failed=()):
    """Return what the sums must be: item i gives i + 1, ..., i + 4 to its group."""
    lines = []
    for group in range(3):
        values, missing = [], []
        for item in range(group * 3, group * 3 + 3):
            is_there = item < 8 and item not in failed
            values += [item + k + 1 if is_there else 0 for k in range(4)]
            missing += [item] if item in failed else []
        label = f"group {group} without {missing}" if missing else f"group {group}"
        lines.append(f"{group}|{label}|{' '.join(f'{v + 1:g}' for v in values)}\n")
    return "".join(lines)


@pytest.mark.parametrize("inline", [False, True])
def test_a_section_reads_what_the_one_before_made_durable(tmp_path, inline):
    with Chain(config(tmp_path), inline=inline) as chain:
        report = run(chain, tmp_path)
    assert (tmp_path / "out/sums.txt").read_text() == expected()
    assert json.loads((tmp_path / "out/kept.json").read_text()) == 8
    assert report.status == "done"
    assert (report.items.done, report.units.name, report.units.done) == (11, "groups", 3)
    assert list(report.sections) == ["kept", "sums"]
    assert load_report(tmp_path / "run/report.json") == report


def test_sections_overlap_and_the_second_waits_for_what_it_needs(tmp_path):
    """`GroupsThatWait` checks the waiting; that the first group is there early, the trace."""
    with Chain(config(tmp_path, read={"with": {"delay_s": 0.3}})) as chain:
        report = run(chain, tmp_path)
    edits, sums = report.sections["kept"], report.sections["sums"]
    assert edits.run_s > 2.0
    assert sums.run_s > 1.0, "it was under way meanwhile"
    events = json.loads((tmp_path / "run/trace.json").read_text())["traceEvents"]
    runs = [event for event in events if event.get("cat") == "run"]
    first_sum = min(event["ts"] for event in runs if event["name"] == "sum")
    last_read = max(event["ts"] for event in runs if event["name"] == "read")
    assert first_sum < last_read
    assert len({event["pid"] for event in runs}) == 2, "a process each, as the trace shows them"
    arrows = {(event["pid"], event["cat"]) for event in events if event["ph"] in "sf"}
    assert len(arrows) == len({category for _pid, category in arrows}) == 2, "ids of their own"
    assert set(json.loads((tmp_path / "run/workers.json").read_text())) == {
        "read/0", "add/0", "keep/0", "gather/0", "sum/0", "write/0"
    }  # fmt: skip


def test_a_failed_item_is_told_to_the_next_section(tmp_path):
    changed = config(tmp_path, add={"use": "tests.fakes:RaisesAt", "with": {"poison": 4}})
    with Chain(changed) as chain, pytest.raises(RunIncomplete):
        run(chain, tmp_path)
    assert (tmp_path / "out/sums.txt").read_text() == expected(failed=[4])
    report = load_report(tmp_path / "run/report.json")
    assert report.status == "failed"
    assert [(f.section, f.item) for f in report.failures] == [("kept", 4)]


def test_one_section_alone(tmp_path):
    with Chain(config(tmp_path, run={"only": "kept"})) as chain:
        report = run(chain, tmp_path)
    assert report.items.done == 8
    assert not (tmp_path / "out/sums.txt").exists()


def test_a_section_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no section is named `sum`; did you mean `sums`"):
        Chain(config(tmp_path, run={"only": "sum"}))


@pytest.mark.parametrize("residency", ["resident", "phased"])
def test_residency_is_reported_and_changes_no_byte(tmp_path, residency):
    with Chain(config(tmp_path, run={"residency": residency})) as chain:
        report = run(chain, tmp_path)
    assert (tmp_path / "out/sums.txt").read_text() == expected()
    assert report.residency.mode == residency
    assert report.residency.switches == (1 if residency == "phased" else 0)
    if residency == "phased":
        assert report.residency.switch_s > 0


def test_a_section_that_cannot_load_ends_the_others(tmp_path):
    with (
        Chain(config(tmp_path, sum={"use": "tests.fakes:FailsToLoad"})) as chain,
        pytest.raises(StageFailed, match="no such file"),
    ):
        run(chain, tmp_path)
    report = load_report(tmp_path / "run/report.json")
    assert report.status == "failed"
    assert "no such file" in report.failures[0].reason


def test_a_mistake_in_the_last_section_leaves_nothing_behind(tmp_path):
    wrong = config(tmp_path, write={"with": {"reads": "nothing", "per_segment": 1}})
    with Chain(wrong) as chain, pytest.raises(ConfigError, match="reads `nothing`"):
        run(chain, tmp_path)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()


def test_a_killed_worker_of_either_section_is_replaced(tmp_path):
    changed = config(tmp_path, read={"with": {"delay_s": 0.2}}, sum={"with": {"delay_s": 0.2}})
    with Chain(changed) as chain:
        killed = []

        def kill():
            wait_until(lambda: (tmp_path / "run/kept/kept/002.json").exists())
            pids = json.loads((tmp_path / "run/workers.json").read_text())
            for name in ("add/0", "sum/0"):
                os.kill(pids[name], signal.SIGKILL)
                killed.append(name)

        thread = threading.Thread(target=kill)
        thread.start()
        report = run(chain, tmp_path)
        thread.join()
    assert killed == ["add/0", "sum/0"]
    assert (tmp_path / "out/sums.txt").read_text() == expected()
    assert {w.name: w.restarts for w in report.workers if w.restarts} == {"add/0": 1, "sum/0": 1}


def test_draining_ends_all_sections_and_resuming_goes_on(tmp_path):
    slow = config(tmp_path, read={"with": {"delay_s": 0.3}})
    with Chain(slow) as chain:

        def drain():
            wait_until(lambda: (tmp_path / "run/kept/kept/003.json").exists())
            assert chain.drain()

        thread = threading.Thread(target=drain)
        thread.start()
        with pytest.raises(RunInterrupted):
            run(chain, tmp_path)
        thread.join()
    assert load_report(tmp_path / "run/report.json").status == "interrupted"
    assert not (tmp_path / "out/sums.txt").exists()
    with Chain(slow) as chain:
        report = chain.resume(tmp_path / "run")
    assert (tmp_path / "out/sums.txt").read_text() == expected()
    assert report.resumed.items >= 4
    with Chain(slow) as chain:
        again = chain.resume(tmp_path / "run")
        assert not chain.has_report
    assert again.status == "done"


def test_an_interruption_stops_sections_in_other_threads(tmp_path):
    slow = config(tmp_path, read={"with": {"delay_s": 5.0}})
    with Chain(slow) as chain:
        main = threading.main_thread().ident

        def interrupt():
            wait_until(lambda: (tmp_path / "run/kept/journal.sqlite").exists())
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        began = time.monotonic()
        with pytest.raises(RunInterrupted):
            run(chain, tmp_path)
        thread.join()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"write": {"output": None}}, "its last stage, `write`, needs an `output` too"),
        ({"write": {"output": "kept.txt"}}, "two of them have an `output` of one name"),
        ({"read": {"output": "x.json"}}, "stages.read: is alone in section `x`"),
        ({"write": {"output": "../x.json"}}, "wanted the name of a file"),
    ],
)
def test_sections_that_cannot_be_are_refused(tmp_path, change, why):
    with pytest.raises(ConfigError, match=why.replace(".", r"\.")):
        config(tmp_path, **change)


def test_a_group_across_sections_is_refused(tmp_path):
    data = config(tmp_path).model_dump(by_alias=True)
    with pytest.raises(ConfigError, match="add and sum are in different sections"):
        parse_config({**data, "groups": [["add", "sum"]]})
