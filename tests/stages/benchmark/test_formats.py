"""Each format, by a set in the shape in which its publishers give it."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base import UserError
from stages.benchmark.formats.choose import FORMATS, format_of
from stages.benchmark.formats.origin import CATEGORIES, category
from stages.benchmark.pictures import read_pixels
from stages.benchmark.read import ReadSamples
from tests.stages.benchmark.sets import (
    DATA,
    IMAGES,
    SETS,
    job_of,
    outputs_of,
    png,
    record,
    write_folder,
    write_json,
)


def read_all(given, tmp_path, name, **how):
    """Return the metas of a set, and its pixels by id."""
    source = ReadSamples(images=IMAGES.get(name, ""), **how)
    facts = source.open(job_of(given, tmp_path))
    outputs, metas, pixels = outputs_of(source, facts), [], {}
    keys = source.keys()
    for key in keys:
        meta = source.read(key, outputs)
        metas.append(meta)
        flat = outputs["source"][: meta.height * meta.width * 3]
        pixels[meta.id] = flat.reshape(meta.height, meta.width, 3).copy()
        assert not outputs["source"][flat.size :].any()
    return metas, pixels


def rendered(name):
    return read_pixels(DATA / "folder/images" / f"{name}-01.png")


@pytest.mark.parametrize("name", FORMATS)
def test_a_set_is_read_in_the_format_that_its_looks_say(tmp_path, name):
    by_looks = read_all(SETS[name], tmp_path, name)
    assert len(by_looks[0]) == (10 if name == "gedit" else 5)
    said = read_all(SETS[name], tmp_path / "again", name, data_format=name)
    assert said[0] == by_looks[0]
    shapes = {image.shape for image in by_looks[1].values()}
    assert shapes == {(200, 300, 3), (300, 200, 3)}


@pytest.mark.parametrize("name", ["origin", "re-edit"])
def test_records_of_the_origin_have_english_categories_ids_and_texts(tmp_path, name):
    metas, pixels = read_all(SETS[name], tmp_path, name)
    assert {meta.id: meta.group for meta in metas} == {f"{one}-0000": one for one in CATEGORIES}
    (physical,) = (meta for meta in metas if meta.group == "physical")
    assert (physical.language, physical.tags) == ("en", ("easy",))
    assert physical.instruction == "Let the ball fall to the ground"
    for one in CATEGORIES:
        assert (pixels[f"{one}-0000"] == rendered(one)).all()


def test_the_other_language_of_a_record_is_taken_where_it_is_asked_for(tmp_path):
    metas, _ = read_all(SETS["origin"], tmp_path, "origin", languages=["zh", "en"])
    assert {meta.language for meta in metas} == {"zh"}
    assert {meta.instruction.isascii() for meta in metas} == {False}


def test_a_record_in_one_language_is_taken_in_that(tmp_path):
    given = write_json(tmp_path / "set.json", [record(instruction=None)])
    metas, _ = read_all(given, tmp_path, "origin")
    assert metas[0].language == "zh"


def test_gedit_has_keys_tasks_and_its_intersection(tmp_path):
    metas, pixels = read_all(SETS["gedit"], tmp_path, "gedit", languages=["en"])
    assert {meta.language for meta in metas} == {"en"}
    by_group = {meta.group: meta for meta in metas}
    assert by_group.keys() == {"background_change", "subject-remove", "color_alter"}
    first = next(meta for meta in metas if meta.instruction.startswith("Let the ball"))
    assert (first.id, first.group) == (b"0000en".hex(), "background_change")
    assert first.tags == ("intersection",)
    assert next(meta for meta in metas if "night" in meta.instruction).tags == ()
    assert (pixels[first.id] == rendered("physical")).all()


def test_gedit_in_chinese_by_either_name(tmp_path):
    for number, language in enumerate(("cn", "zh")):
        metas, _ = read_all(SETS["gedit"], tmp_path / str(number), "gedit", languages=[language])
        assert {meta.language for meta in metas} == {"cn"}, "as the publishers' folders are called"


def test_gedit_is_read_from_a_folder_of_parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "train-00000-of-00001.parquet").write_bytes(SETS["gedit"].read_bytes())
    assert len(read_all(folder, tmp_path, "gedit")[0]) == 10


def test_imgedit_finds_its_images_below_a_folder(tmp_path):
    metas, pixels = read_all(SETS["imgedit"], tmp_path, "imgedit")
    first = next(meta for meta in metas if meta.id == "1000")
    assert (first.group, first.language) == ("background", "en")
    assert (pixels["1000"] == rendered("physical")).all()


def test_a_folder_has_groups_languages_and_tags_of_its_own(tmp_path):
    folder = write_folder(tmp_path / "set", {"a": png()}, group="hats", language="de", tags=["x"])
    (meta,) = read_all(folder, tmp_path, "folder")[0]
    assert (meta.group, meta.language, meta.tags) == ("hats", "de", ("x",))
    (by_list,) = read_all(folder / "samples.jsonl", tmp_path / "again", "folder")[0]
    assert by_list == meta


def test_a_byte_order_mark_is_no_fault(tmp_path):
    given = tmp_path / "set.json"
    given.write_bytes(b"\xef\xbb\xbf" + SETS["origin"].read_bytes())
    assert len(read_all(given, tmp_path, "origin")[0]) == 5


@pytest.mark.parametrize("said", ["Cultural/Social", "\u793e\u4f1a", " social ", "cultural"])
def test_a_category_has_one_name_whatever_it_is_called(said):
    assert category(said) == "cultural"


def test_an_unknown_category_is_told_the_nearest():
    with pytest.raises(UserError, match=r"`fysical`; did you mean `physical`\?"):
        category("fysical")


@pytest.mark.parametrize(
    ("path", "data_format", "message"),
    [
        ("missing.json", "auto", "missing.json: no such file or folder"),
        ("set.json", "gedits", r"data_format = 'gedits': did you mean 'gedit'\?"),
        ("set.txt", "auto", "cannot tell its format by .txt"),
        ("empty", "auto", "a folder with neither samples.jsonl nor parquet files"),
        ("text.json", "auto", "text.json: is no JSON"),
        ("number.json", "auto", "is JSON, but no list of samples"),
        ("text.parquet", "auto", "text.parquet: is no parquet file"),
        ("other.parquet", "auto", "has no column `key`, `task_type`, `instruction_language`, `inp"),
        ("none.json", "auto", "there is no sample in it"),
    ],
)
def test_what_is_no_set_is_refused_in_a_line(tmp_path, path, data_format, message):
    write_json(tmp_path / "set.json", [record()])
    write_json(tmp_path / "number.json", 5)
    write_json(tmp_path / "none.json", [])
    (tmp_path / "empty").mkdir()
    for name in ("set.txt", "text.json", "text.parquet"):
        (tmp_path / name).write_text("what is this?")
    pq.write_table(pa.table({"instruction": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=message) as caught:
        ReadSamples(data_format=data_format).open(job_of(tmp_path / path, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_language_that_no_sample_has_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no sample in fr in it"):
        ReadSamples(languages=["fr"]).open(job_of(SETS["gedit"], tmp_path))


def test_a_data_set_is_told_by_its_first_element(tmp_path):
    assert format_of(str(SETS["imgedit"]), "auto") == "imgedit"
    assert format_of(str(SETS["re-edit"]), "auto") == "origin"  # one reader for both
    nested = write_json(tmp_path / "a.json", {"k": {"id": "x.png", "prompt": "p"}})
    assert format_of(str(nested), "auto") == "imgedit"


def test_only_those_who_read_parquet_load_pyarrow(tmp_path):
    code = (
        "import sys, stages.benchmark.read, stages.benchmark.collect, stages.benchmark.save;"
        "assert not {'pyarrow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env={"PYTHONPATH": "."})
