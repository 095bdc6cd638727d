"""Groups of edits: from this run's store or from a folder, with stand-ins for what is missing."""

import numpy as np
import pytest

from stages.base import UserError
from stages.benchmark.collect import CollectEdits
from stages.benchmark.read import ReadSamples
from tests.stages.benchmark.editing import edit_all
from tests.stages.benchmark.sets import AREA, job_of, outputs_of, png, record, write_json

SIZES = [
    (48, 32),
    (32, 48),
    (64, 44),
]  # width, height; the first and the last have edits of one size


@pytest.fixture
def given(tmp_path):
    """Eleven samples: seven of 48x32, three of 32x48, one of 64x44 with the first's edited size."""
    sizes = [(48, 32)] * 7 + [(32, 48)] * 3 + [(64, 44)]
    groups = ("physical", "causal")
    records = [
        record(f"Do {at}", png(*size, value=100 + at), groups[at % 2], id=f"s{at:02}")
        for at, size in enumerate(sizes)
    ]
    return write_json(tmp_path / "set.json", records)


def edited_run(given, tmp_path, **how):
    """Edit a set as a run's first section; return the job of its second."""
    job = job_of(given, tmp_path)
    edit_all(job, **how)
    return job_of(given, tmp_path, "score", earlier=job.work_dir)


def collected(job, **how):
    """Return the facts of a job's groups, and meta and tensors of each."""
    source = CollectEdits(**({"group_size": 4, "area": AREA} | how))
    facts, groups = source.open(job), {}
    keys = source.keys()
    for key in keys:
        outputs = outputs_of(source, facts)
        groups[key] = (source.read(key, outputs), outputs)
    return source, facts, groups


def shown(outputs, name, row, size):
    height, width = size
    flat = outputs[name][row]
    assert not flat[height * width * 3 :].any()
    return flat[: height * width * 3].reshape(height, width, 3)


def test_groups_hold_each_sample_beside_its_edit(tmp_path, given):
    source, facts, groups = collected(edited_run(given, tmp_path))
    names = [" ".join(member.id for member in meta.members) for meta, _ in groups.values()]
    assert names == ["s00 s01 s02 s03", "s04 s05 s06 s10", "s07 s08 s09"]
    assert (facts.num_samples, source.num_units(), facts.group_size) == (11, 11, 4)
    edits = {}
    for meta, outputs in groups.values():
        for row, member in enumerate(meta.members):
            assert (member.state, member.copy_of, member.reason) == ("edited", row, "")
            picture = shown(outputs, "sources", row, member.source)
            assert int(picture[1, 0, 0]) == 100 + int(member.id[1:])
            edit = shown(outputs, "edits", row, member.edited)
            edits[member.id] = int(edit[0, 0, 0])
            assert set(edit.flat) == {edits[member.id]}
    reading = ReadSamples(area=AREA)
    reading.open(job_of(given, tmp_path))
    assert edits == {key: 10 + at for at, key in enumerate(reading.keys())}


def test_rows_behind_the_last_member_are_copies_of_the_first_good_row(tmp_path, given):
    _, _, groups = collected(edited_run(given, tmp_path), group_size=8)
    for meta, outputs in groups.values():
        good = meta.members[0].copy_of
        for row in range(len(meta.members), 8):
            for name in ("sources", "edits"):
                assert (outputs[name][row] == outputs[name][good]).all()
                assert outputs[name][row].any()


def test_a_failed_and_an_unasked_member_show_a_good_one_and_stay_what_they_are(tmp_path, given):
    whole = collected(edited_run(given, tmp_path / "whole"))[2]
    (tmp_path / "some").mkdir()
    job = edited_run(given, tmp_path / "some", failing=("s00",))
    _, facts, groups = collected(job, categories=["physical"])
    assert facts.num_samples == 6
    assert groups.keys() <= whole.keys()
    states = {}
    for key, (meta, outputs) in groups.items():
        whole_meta, whole_outputs = whole[key]
        assert [m.id for m in meta.members] == [m.id for m in whole_meta.members]
        for row, member in enumerate(meta.members):
            states[member.id] = (member.state, member.reason)
            stand_in = meta.members[member.copy_of]
            assert stand_in.state == "edited"
            assert (member.copy_of == row) == (member.state == "edited")
            for name in ("sources", "edits"):
                assert (outputs[name][row] == outputs[name][member.copy_of]).all()
            if member.state == "edited":
                assert member == whole_meta.members[row]
                for name in ("sources", "edits"):
                    same = min(outputs[name].shape[1], whole_outputs[name].shape[1])
                    assert (outputs[name][row, :same] == whole_outputs[name][row, :same]).all()
    assert states["s00"] == ("failed", "s00 did not fit")
    assert states["s02"] == ("edited", "")
    assert states["s01"] == ("unasked", "")


def test_a_limit_changes_no_group_and_leaves_out_those_it_does_not_touch(tmp_path, given):
    job = edited_run(given, tmp_path)
    whole = collected(job)[2]
    source, _, some = collected(job, limit=2)
    assert len(some) < len(whole)
    for key in some:
        assert [m.id for m in some[key][0].members] == [m.id for m in whole[key][0].members]
    asked = [m.id for meta, _ in some.values() for m in meta.members if m.state != "unasked"]
    assert asked == ["s00", "s01"]
    assert list(source.needs) == [2]


def test_what_a_group_waits_for_is_what_it_then_finds(tmp_path, given):
    reading, source = ReadSamples(area=AREA), CollectEdits(group_size=4, area=AREA)
    reading.open(job_of(given, tmp_path))
    first = reading.keys()[:4]
    job = edited_run(given, tmp_path, only=first)
    outputs = outputs_of(source, source.open(job))
    assert len(source.needs) == len(source.keys())
    assert source.needs[0] == 4
    members = source.read(source.keys()[0], outputs).members
    assert [member.id for member in members] == list(first)
    assert {member.state for member in members} == {"edited"}
    late = source.read(source.keys()[1], outputs).members
    for member in late:
        assert member.reason == f"sample {member.id}: no edit of it was saved"


def test_a_group_without_one_good_row_is_all_zeros(tmp_path, given):
    reading = ReadSamples(area=AREA)
    reading.open(job_of(given, tmp_path))
    last = reading.keys()[8:]
    _, _, groups = collected(edited_run(given, tmp_path, failing=last))
    meta, outputs = groups[max(groups)]
    assert {(member.state, member.copy_of) for member in meta.members} == {("failed", -1)}
    assert not outputs["sources"].any()
    assert not outputs["edits"].any()


def test_samples_that_cannot_be_used_are_members_with_their_reason(tmp_path):
    records = [record(id="a"), record(id="b", src_img_b64=None), record(id="c", image=png()[:60])]
    given = write_json(tmp_path / "set.json", records)
    _, facts, groups = collected(edited_run(given, tmp_path, failing=("b", "c")))
    members = {member.id: member for meta, _ in groups.values() for member in meta.members}
    assert members["b"].reason == "sample b (record 2): no field `src_img_b64`"
    assert (members["b"].source, members["b"].state) == ((0, 0), "failed")
    assert "its image cannot be decoded" in members["c"].reason
    assert (members["a"].state, facts.num_samples) == ("edited", 3)


def test_a_damaged_record_or_image_fails_its_member_alone(tmp_path, given):
    job = edited_run(given, tmp_path)
    store = tmp_path / "run/edit/edits"
    (store / "s00.json").write_bytes(b"{")
    (store / "s02.png").write_bytes((store / "s02.png").read_bytes()[:60])
    (store / "s04.png").write_bytes(png(160, 96))
    (store / "s06.png").write_bytes(png(96, 64))
    _, _, groups = collected(job)
    reasons = {one.id: one.reason for meta, _ in groups.values() for one in meta.members}
    assert "s00.json: is damaged" in reasons["s00"]
    assert "its image cannot be decoded" in reasons["s02"]
    assert "was 160x96, and is another by now" in reasons["s06"]
    assert [name for name, reason in reasons.items() if reason] == ["s00", "s02", "s06"]


def placed(tmp_path, given, protocol="origin"):
    """Edit a set in a run of its own, and return the job of another that only scores."""
    job = job_of(given, tmp_path)
    _, sink, facts = edit_all(job, protocol=protocol, model_name="m")
    sink.finish(range(facts.num_samples))
    work_dir = tmp_path / "other/run"
    work_dir.mkdir(parents=True)
    return job_of(given, tmp_path, "score", work_dir=str(work_dir), run_dir=str(work_dir))


@pytest.mark.parametrize("protocol", ["origin", "imgedit", "gedit"])
def test_edits_that_lie_in_a_folder_are_scored_like_those_of_this_run(tmp_path, given, protocol):
    job = placed(tmp_path, given, protocol)
    source, facts, groups = collected(job, protocol=protocol, model_name="m")
    whole = collected(job_of(given, tmp_path, "score", earlier=str(tmp_path / "run/edit")))
    assert facts.max_edited_bytes == whole[1].max_edited_bytes
    assert source.needs == (), "there is nothing to wait for"
    for key, (meta, outputs) in groups.items():
        assert meta == whole[2][key][0]
        for name in ("sources", "edits"):
            assert (outputs[name] == whole[2][key][1][name]).all()


def test_edits_of_others_may_have_any_size_and_some_may_be_missing(tmp_path, given):
    job = placed(tmp_path, given)
    images = tmp_path / "out/images/m"
    (images / "physical/s00.png").unlink()
    (images / "physical/s00.png").write_bytes(png(200, 150, value=3))
    (images / "causal/s01.png").unlink()
    (images / "physical/s02.png").unlink()
    (images / "physical/s02.png").write_bytes(b"no image")
    _, facts, groups = collected(job, model_name="m")
    members = {one.id: (one, row, outputs) for meta, outputs in groups.values()
               for row, one in enumerate(meta.members)}  # fmt: skip
    assert facts.max_edited_bytes == 200 * 150 * 3
    one, row, outputs = members["s00"]
    assert one.edited == (150, 200)
    assert np.median(shown(outputs, "edits", row, (150, 200))) == 3
    assert "s01.png cannot be read (No such file or directory)" in members["s01"][0].reason
    assert "its image is none of PNG" in members["s02"][0].reason


def test_no_edits_at_all_is_refused_with_the_first_place_that_was_looked_at(tmp_path, given):
    with pytest.raises(UserError, match=r"images/m/\w+/s\d\d.png: no edit there, nor of any other"):
        collected(job_of(given, tmp_path, "score"), model_name="m")


def test_a_set_that_breaks_off_says_so_here_too(tmp_path, given):
    given.write_text(given.read_text()[:-50])
    source, facts, _ = collected(edited_run(given, tmp_path))
    assert "breaks off after 10 samples" in source.broken
    assert facts.num_samples == 10
