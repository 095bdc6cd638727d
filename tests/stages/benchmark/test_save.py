"""Edits become durable one by one, and lie at the end where their protocol expects them."""

import errno
import json
import os
import resource
from contextlib import contextmanager

import pytest

from stages.base import UserError
from stages.benchmark import place as placing
from stages.benchmark.items import read_items
from stages.benchmark.pictures import read_pixels
from stages.benchmark.read import ReadSamples
from stages.benchmark.samples import Sample
from stages.benchmark.save import SaveEdits
from tests.stages.benchmark.editing import edit_all, edited_meta, row_of
from tests.stages.benchmark.sets import (
    AREA,
    SETS,
    item_of,
    job_of,
    outputs_of,
    png,
    record,
    write_folder,
    write_json,
)


@contextmanager
def full_disk(num_bytes):
    """No file may get longer than this; as on a full disk, writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def given(tmp_path):
    return write_json(tmp_path / "set.json", [record(f"Do {at}") for at in range(3)])


def opened(job, **how):
    source, sink = ReadSamples(area=AREA), SaveEdits(**how)
    facts = source.open(job)
    sink.open(facts)
    return source, sink, facts


def lines_of(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out/edits.jsonl").read_text().splitlines()]


def images_of(tmp_path):
    found = (tmp_path / "out/images").rglob("*")
    return sorted(str(path.relative_to(tmp_path / "out")) for path in found if path.is_file())


def test_edits_lie_in_their_layout_and_the_list_names_them(tmp_path, given):
    job = job_of(given, tmp_path, seed=3)
    source, sink, _ = edit_all(job, model_name="Qwen")
    assert not (tmp_path / "out/images").exists(), "all at the end"
    sink.finish(range(3))
    names = [f"images/Qwen/physical/physical-{at:04}.png" for at in range(3)]
    assert images_of(tmp_path) == names
    lines = lines_of(tmp_path)
    assert [line["image"] for line in lines] == names
    assert [line["reason"] for line in lines] == [None] * 3
    first = lines[0]
    assert (first["id"], first["instruction"], first["group"]) == (
        "physical-0000",
        "Do 0",
        "physical",
    )
    assert (first["source"], first["edited"], first["steps"]) == ([32, 48], [96, 160], 4)
    outputs = outputs_of(source, source.open(job))
    assert first["seed"] == source.read("physical-0000", outputs).seed
    for at, name in enumerate(names):
        pixels = read_pixels(tmp_path / "out" / name)
        assert pixels.shape == (96, 160, 3)
        assert set(pixels.flat) == {10 + at}
    assert (tmp_path / "out" / names[0]).stat().st_nlink == 2, "no second copy on the disk"


def test_each_edit_is_durable_by_itself_and_says_in_which_files(tmp_path, given):
    source, sink, facts = opened(job_of(given, tmp_path))
    meta = edited_meta(source.read("physical-0001", outputs_of(source, facts)))
    assert sink.write(item_of(1), {"edited": row_of(meta, 5)}, meta) == 1
    (durable,) = sink.commit()
    assert durable.items == (1,)
    assert set(durable.files) == {"edits/physical-0001.json", "edits/physical-0001.png"}
    assert all((tmp_path / "run/edit" / name).stat().st_size for name in durable.files)
    assert sink.commit() == []
    assert sorted(os.listdir(tmp_path / "run/edit/edits")) == sorted(
        name.removeprefix("edits/") for name in durable.files
    ), "nothing temporary is left"


def test_a_failed_sample_has_a_record_and_a_line_with_its_reason_and_no_image(tmp_path):
    records = [record(), record(src_img_b64=None), record()]
    given = write_json(tmp_path / "set.json", records)
    source, sink, facts = opened(job_of(given, tmp_path))
    keys = source.keys()
    by_key = {key: at for at, key in enumerate(keys)}
    reason = "sample physical-0001 (record 2): no field `src_img_b64`"
    with pytest.raises(UserError) as caught:
        source.read("physical-0001", outputs_of(source, facts))
    assert str(caught.value) == reason
    assert sink.write(item_of(by_key["physical-0001"], failed=reason), {}, None) == 0
    meta = source.read("physical-0000", outputs_of(source, facts))
    assert sink.write(item_of(by_key["physical-0000"], failed="it did not fit"), {}, meta) == 0
    meta = edited_meta(source.read("physical-0002", outputs_of(source, facts)))
    assert sink.write(item_of(by_key["physical-0002"]), {"edited": row_of(meta, 5)}, meta) == 1
    assert [len(durable.files) for durable in sink.commit()] == [1, 1, 2]
    sink.finish(range(3))
    lines = {line["id"]: line for line in lines_of(tmp_path)}
    assert lines["physical-0001"]["reason"] == reason
    assert lines["physical-0000"]["reason"] == "it did not fit"
    assert lines["physical-0001"]["image"] is None
    assert lines["physical-0002"]["reason"] is None
    assert images_of(tmp_path) == ["images/edits/physical/physical-0002.png"]


def test_gedit_has_the_source_of_each_edit_beside_it(tmp_path):
    job = job_of(SETS["gedit"], tmp_path)
    _, sink, facts = edit_all(job, protocol="gedit", model_name="m")
    sink.finish(range(facts.num_samples))
    key = b"0000cn".hex()
    place = tmp_path / "out/images/m/fullset/background_change/cn"
    assert {path.name for path in place.iterdir()} >= {f"{key}.png", f"{key}_SRCIMG.png"}
    original = SETS["folder"] / "images/physical-01.png"
    assert (read_pixels(place / f"{key}_SRCIMG.png") == read_pixels(original)).all()
    assert len(images_of(tmp_path)) == 20


def test_a_source_that_is_gone_by_then_fails_its_sample_alone(tmp_path):
    folder = write_folder(tmp_path / "set", {"a": png(), "b": png()})
    source, sink, facts = opened(job_of(folder, tmp_path), protocol="gedit")
    outputs = outputs_of(source, facts)
    metas = [edited_meta(source.read(key, outputs)) for key in ("a", "b")]
    (folder / "a.png").unlink()
    rows = [row_of(meta, 5) for meta in metas]
    done = [sink.write(item_of(at), {"edited": rows[at]}, metas[at]) for at in (0, 1)]
    assert done == [0, 1]
    sink.finish([0, 1])
    assert "a.png cannot be read" in lines_of(tmp_path)[0]["reason"]


def test_imgedit_has_all_images_in_one_folder_by_key(tmp_path):
    folder = write_folder(tmp_path / "set", {"7": png()})
    _, sink, _ = edit_all(job_of(folder, tmp_path), protocol="imgedit", model_name="m")
    sink.finish([0])
    assert images_of(tmp_path) == ["images/m/7.png"]


def test_finishing_again_after_a_kill_half_way_changes_nothing(tmp_path, given, monkeypatch):
    job = job_of(given, tmp_path)
    _, sink, facts = edit_all(job)
    monkeypatch.setattr("stages.benchmark.save.publish", None)
    with pytest.raises(TypeError):
        sink.finish(range(3))  # killed after the images, before the list
    monkeypatch.undo()
    assert not (tmp_path / "out/edits.jsonl").exists()
    again = SaveEdits()
    again.open(facts)
    again.finish(range(3))
    assert len(lines_of(tmp_path)) == 3
    once_more = SaveEdits()
    once_more.open(facts)
    once_more.finish(range(3))
    assert len(images_of(tmp_path)) == 3
    assert not [name for name in images_of(tmp_path) if "partial" in name]


def test_where_files_have_one_name_only_edits_are_copied(tmp_path, given, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(placing.os, "link", refuse)
    _, sink, _ = edit_all(job_of(given, tmp_path))
    sink.finish(range(3))
    paths = [tmp_path / "out" / name for name in images_of(tmp_path)]
    assert [path.stat().st_nlink for path in paths] == [1, 1, 1]
    assert [int(read_pixels(path)[0, 0, 0]) for path in paths] == [10, 11, 12]


@pytest.mark.parametrize("left", ["edits.jsonl", "images/edits/physical/physical-0001.png"])
def test_results_of_another_run_are_not_written_over_unless_asked(tmp_path, given, left):
    other = tmp_path / "out" / left
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other")
    job = job_of(given, tmp_path)
    with pytest.raises(UserError, match=f"{left}: exists already; use --overwrite or another"):
        opened(job)
    assert other.read_bytes() == b"other"
    _, sink, _ = edit_all(job_of(given, tmp_path, overwrite=True))
    sink.finish(range(3))
    assert other.read_bytes() != b"other"


def test_a_disk_that_is_full_names_the_file_and_leaves_nothing_half_written(tmp_path, given):
    source, sink, facts = opened(job_of(given, tmp_path))
    meta = edited_meta(source.read("physical-0000", outputs_of(source, facts)))
    with full_disk(100), pytest.raises(OSError, match=r"File too large: '.*/edits/physical-0000"):
        sink.write(item_of(0), {"edited": row_of(meta, 5)}, meta)
    assert os.listdir(tmp_path / "run/edit/edits") == []
    assert sink.commit() == []
    assert sink.write(item_of(0), {"edited": row_of(meta, 5)}, meta) == 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("gone/deeper/edits.jsonl", "no folder .*gone; make it first"),
        ("set.json/edits.jsonl", "set.json: a file; name a folder for the results"),
        ("run/edit", "run/edit: a folder, where a file is to be"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path, given, output, message):
    with pytest.raises(UserError, match=message):
        opened(job_of(given, tmp_path, output=str(tmp_path / output)))


def test_a_group_that_the_protocol_does_not_know_is_refused_before_any_work(tmp_path):
    folder = write_folder(tmp_path / "set", {"a": png()}, group="causel")
    with pytest.raises(UserError, match=r"causel: no category .* did you mean causal"):
        opened(job_of(folder, tmp_path))


def test_two_samples_with_one_file_are_refused(tmp_path, given, monkeypatch):
    monkeypatch.setattr(SaveEdits, "_image_path", lambda _self, _sample: "same.png")
    with pytest.raises(UserError, match="samples physical-0000 and physical-0001: both are"):
        opened(job_of(given, tmp_path))


def test_samples_are_what_their_source_wrote_down(tmp_path, given):
    source, _, _ = opened(job_of(given, tmp_path))
    items = read_items(str(tmp_path / "run/edit"))
    assert [type(item) for item in items] == [Sample] * 3
    assert [item.id for item in items] == list(source.keys())
