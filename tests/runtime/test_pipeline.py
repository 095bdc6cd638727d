import json
import os
import threading

import pytest

from runtime.errors import ConfigError
from runtime.pipeline import Pipeline
from runtime.report import load_report

EXPECTED = [f"{i}|item {i}|" + " ".join(str(i + j + 1) for j in range(4)) for i in range(100)]


def expected(count):
    return "".join(line + "\n" for line in EXPECTED[:count])


def run(config, source, folder, **options):
    output = folder / "out.txt"
    with Pipeline(config, **options) as pipeline:
        report = pipeline.run(input=source, output=output, run_dir=folder / "run")
    return report, output.read_text()


@pytest.fixture
def inline_output(make_config, numbers, tmp_path):
    (tmp_path / "inline").mkdir()
    _report, text = run(make_config(), numbers(25), tmp_path / "inline", inline=True)
    return text


def test_items_go_through_worker_processes_and_come_out_in_order(make_config, numbers, tmp_path):
    report, text = run(make_config(), numbers(25), tmp_path)
    assert text == expected(25)
    assert (report.status, report.items.done, report.units.done) == ("done", 25, 25)
    assert report.counts == {"numbers": 25, "lines": 13}
    assert report == load_report(tmp_path / "run/report.json")
    pids = json.loads((tmp_path / "run/workers.json").read_text())
    assert len(set(pids.values())) == 3
    assert os.getpid() not in pids.values()


def test_a_slot_that_is_freed_a_little_late_holds_an_item_up_and_no_more(
    make_config, numbers, tmp_path
):
    """An item can be durable, and another admitted for it, before its last `SlotFreed` arrives."""
    config = make_config(sink={"with": {"per_segment": 1, "reads": "x y"}})
    report, _text = run(config, numbers(3000), tmp_path)
    assert report.items.done == 3000


def test_memory_is_bounded_by_the_window_whatever_the_number_of_items(
    make_config, numbers, tmp_path
):
    """900 items more are 225 MiB more, if anybody kept them."""
    config = make_config(
        source={"with": {"width": 2**16}}, add={"use": "Sum"}, sink={"with": {"reads": "y"}}
    )
    with Pipeline(config) as pipeline:
        peaks = [
            pipeline.run(input=numbers(n), output=tmp_path / f"{n}", run_dir=tmp_path / f"run {n}")
            for n in (100, 1000)
        ]
    few, many = ({w.name: w.max_rss_bytes for w in report.workers} for report in peaks)
    grown = {name: (many[name] - few[name]) / 2**20 for name in few}
    assert all(mib < 8 for mib in grown.values()), grown


def two_adds(**more):
    return {
        "first": {"use": "Add", "with": {"amount": 0.5, "delay_s": 0.01}, **more},
        "second": {"use": "Add", "with": {"reads": "y", "writes": "z", "amount": 0.5}},
    }


@pytest.mark.parametrize(
    ("stages", "groups", "sink"),
    [
        (two_adds(), (), {"with": {"reads": "z"}}),
        (two_adds(), (("first", "second"),), {"with": {"reads": "z"}}),
        (two_adds(replicas=3), (), {"with": {"reads": "z"}, "replicas": 2}),
        (two_adds(replicas=2, assign="round_robin"), (), {"with": {"reads": "z"}}),
        (two_adds(), (("read", "first", "second", "write"),), {"with": {"reads": "z"}}),
    ],
    ids=["apart", "grouped", "replicas", "round robin", "all in one worker"],
)
def test_every_placement_gives_the_bytes_of_an_inline_run(
    make_config, numbers, tmp_path, inline_output, stages, groups, sink
):
    _report, text = run(make_config(**stages, groups=groups, sink=sink), numbers(25), tmp_path)
    assert text == inline_output == expected(25)


def test_stages_grouped_around_another_worker_keep_their_items(make_config, numbers, tmp_path):
    config = make_config(
        outer={"use": "Add", "replicas": 2, "with": {"amount": 1}},
        middle={"use": "Add", "with": {"reads": "y", "writes": "z", "amount": 1}},
        again={"use": "Add", "replicas": 2, "with": {"reads": "z", "writes": "w", "amount": -1}},
        groups=(("outer", "again"),),
        sink={"with": {"reads": "x y w"}},
    )
    report, text = run(config, numbers(20), tmp_path)
    assert text.splitlines()[3] == "3|item 3|3 4 5 6;4 5 6 7;4 5 6 7"
    assert [worker.name for worker in report.workers] == [
        "read/0",
        "outer+again/0",
        "outer+again/1",
        "middle/0",
        "write/0",
    ]
    items = {worker.name: worker.items for worker in report.workers}
    assert items["outer+again/0"] + items["outer+again/1"] == 20
    took = {(link.sender, link.receiver): link.items for link in report.links}
    for outer in ("outer+again/0", "outer+again/1"):
        assert took["read/0", outer] == took["middle/0", outer], "an item came back elsewhere"


def test_workers_stay_for_a_second_run_of_another_size(make_config, numbers, tmp_path):
    with Pipeline(make_config()) as pipeline:
        first = pipeline.run(input=numbers(3), output=tmp_path / "a", run_dir=tmp_path / "run a")
        second = pipeline.run(input=numbers(30), output=tmp_path / "b", run_dir=tmp_path / "run b")
    assert [w.pid for w in first.workers] == [w.pid for w in second.workers]
    assert (tmp_path / "b").read_text() == expected(30)
    assert [w.items for w in second.workers] == [30, 30, 30]


def test_a_stage_that_fits_less_makes_the_items_smaller(make_config, numbers, tmp_path):
    config = make_config(
        source={"use": "Sized", "with": {"size": 8}}, add={"use": "FitsOnly", "with": {"fits": 3}}
    )
    report, text = run(config, numbers(20), tmp_path)
    assert text.splitlines()[0] == "0|item 0|1 2 3"
    assert report.items.done == 7
    assert report.warnings == ("items of size 8 do not fit into memory; 3 is taken",)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"use": "Missing"}, "stages.add.use: tests.fakes has no stage, source or sink `Missing`"),
        ({"use": "Add", "with": {"amonut": 2}}, "stages.add.with.amonut: .* did you mean `amount`"),
        ({"use": "Add", "with": {"reads": "w"}}, "stages.add: reads `w`, which no earlier stage"),
        ({"use": "Lines"}, "stages.add: is a sink, but a stage is needed in place 2"),
    ],
)
def test_stages_that_do_not_fit_are_refused_and_nothing_is_left(
    make_config, numbers, tmp_path, change, complaint
):
    with Pipeline(make_config(add=change)) as pipeline, pytest.raises(ConfigError, match=complaint):
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_source_refuses_is_the_users_to_mend(make_config, tmp_path):
    (tmp_path / "in.txt").write_text("many")
    with Pipeline(make_config()) as pipeline, pytest.raises(ConfigError, match="found 'many'"):
        pipeline.run(input=tmp_path / "in.txt", output=tmp_path / "o", run_dir=tmp_path / "run")


def test_an_output_that_exists_is_kept_unless_told_otherwise(make_config, numbers, tmp_path):
    (tmp_path / "out").write_text("mine")
    with Pipeline(make_config()) as pipeline:
        with pytest.raises(ConfigError, match="exists; say --overwrite"):
            pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")
        assert (tmp_path / "out").read_text() == "mine"
        pipeline.run(
            input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run", overwrite=True
        )
    assert (tmp_path / "out").read_text() == expected(5)


def test_a_run_directory_takes_one_run(make_config, numbers, tmp_path):
    with Pipeline(make_config()) as pipeline:
        pipeline.run(input=numbers(5), output=tmp_path / "a", run_dir=tmp_path / "run")
        with pytest.raises(ConfigError, match="has another run in it"):
            pipeline.run(input=numbers(5), output=tmp_path / "b", run_dir=tmp_path / "run")


def test_the_journal_has_every_durable_item_with_size_and_hash(make_config, numbers, tmp_path):
    from runtime.journal import Journal

    run(make_config(), numbers(25), tmp_path)
    with Journal.open(tmp_path / "run/journal.sqlite") as journal:
        done = journal.done(tmp_path / "run")
        assert list(done) == list(range(25))
        assert done.problems == ()
        assert journal.fingerprint["seed"] == 0


def test_a_thread_may_make_a_pipeline_and_end(make_config, numbers, tmp_path):
    """PR_SET_PDEATHSIG fires when the thread that started a process ends."""
    pipeline = Pipeline(make_config())
    first = threading.Thread(
        target=pipeline.run,
        kwargs={"input": numbers(5), "output": tmp_path / "a", "run_dir": tmp_path / "run a"},
    )
    first.start()
    first.join()
    with pipeline:
        pipeline.run(input=numbers(9), output=tmp_path / "b", run_dir=tmp_path / "run b")
    assert (tmp_path / "b").read_text() == expected(9)
