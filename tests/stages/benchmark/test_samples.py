"""Samples that cannot be used fail by themselves, with a reason; sets that break off go on."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from stages.base import UserError
from stages.benchmark.read import ReadSamples
from tests.stages.benchmark.sets import (
    SETS,
    job_of,
    outputs_of,
    png,
    record,
    write_folder,
    write_json,
)


def opened(given, tmp_path, **how):
    source = ReadSamples(**how)
    return source, source.open(job_of(given, tmp_path))


def outcomes(source, facts):
    """Return what reading each sample comes to: "" or why it failed."""
    outputs, found = outputs_of(source, facts), {}
    keys = source.keys()
    for key in keys:
        try:
            source.read(key, outputs)
            found[key] = ""
        except UserError as error:
            found[key] = str(error)
            assert "\n" not in found[key]
    return found


def bomb(width, height):
    """Return a PNG of a few bytes that says it has so many pixels."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
        check = zlib.crc32(name + content)
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", check)]
    return b"".join(parts)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (record(src_img_b64=None), "no field `src_img_b64`"),
        (record(edit_instruction=None, edit_instruction_en=None), "no field `edit_instruction_en`"),
        (record("", edit_instruction=" "), "its instruction is empty"),
        (record("x" * 5000), "its instruction has 5000 bytes, over 4096"),
        (record(edit_instruction_en=[1]), "field `edit_instruction_en` is no text"),
        (record(image=b"no image"), "its image is none of PNG, JPEG, WEBP"),
        (record(image=b""), "its image is none of PNG, JPEG, WEBP"),
        (record(image=png(1, 1)), "its image is 1x1, under 32 pixels a side"),
        (record(image=png(20000, 40)), "its image is 20000x40, over 8192 pixels a side"),
        (record(image=bomb(60000, 60000)), "its image has more than 8192 pixels a side"),
        (record(image=bomb(10000, 10000)), "its image has more than 8192 pixels a side"),
        (record(image=png()[:60]), "its image cannot be decoded"),
        (record(src_img_b64="@@@"), "field `src_img_b64` is no Base64"),
        (record(src_img_b64=7), "field `src_img_b64` is no Base64"),
        (record(id=""), "its id is no name of up to 200 bytes"),
        (record(id="a\nb"), "its id is no name"),
        (record(id="x" * 300), "its id is no name"),
        (record(id="physical-0000"), "record 1 has the same id; only that is used"),
        (record(subset="fysical"), "unknown category `fysical`; did you mean `physical`?"),
        (record(subset=None), "no field `subset`"),
        ("text", "it is no object with fields"),
        (None, "it is no object with fields"),
        (
            {},
            "no field `subset`; no field `edit_instruction_en` or `edit_instruction`; no field `s",
        ),
    ],
)
def test_a_sample_that_cannot_be_used_fails_with_its_name_and_the_rest_is_read(tmp_path, bad, why):
    given = tmp_path / "set.json"
    given.write_text(json.dumps([record(), bad, record()]))
    source, facts = opened(given, tmp_path)
    found = outcomes(source, facts)
    assert (facts.num_samples, source.num_units(), len(found)) == (3, 3, 3)
    failed = {key: reason for key, reason in found.items() if reason}
    assert len(failed) == 1
    ((key, reason),) = failed.items()
    assert why in reason
    assert reason.startswith(f"sample {UserError(key)!s} (record 2): ")
    assert len(key.encode()) < 250
    assert source.broken == ""


def test_a_sample_is_named_by_its_id_and_where_it_stands(tmp_path):
    given = write_json(tmp_path / "set.json", [record(), record(id="cat", src_img_b64=None)])
    source, facts = opened(given, tmp_path)
    assert outcomes(source, facts)["cat"] == "sample cat (record 2): no field `src_img_b64`"


def test_what_a_format_has_no_field_for_is_named(tmp_path):
    folder = write_folder(tmp_path / "set", {"a": png(), "b": png()})
    with open(folder / "samples.jsonl", "a") as file:
        file.write('{"id": "c"}\n{"id": "d", \n\n[1]\n')
        file.write('{"id": "f", "group": "\\ud800", "instruction": "i", "image": "a.png"}\n')
        file.write('{"id": "e", "group": "g", "instruction": "i", "image": "gone.png"}\n')
    source, facts = opened(folder, tmp_path)
    found = outcomes(source, facts)
    assert [key for key, reason in found.items() if not reason] == ["a", "b"]
    missing = "no field `image`; no field `group` or `category`; no field `instruction`"
    assert found["c"] == f"sample c (line 3): {missing}"
    assert "line 4): it is no JSON" in found["line-0004"]
    assert "it is no object with fields" in found["line-0006"]
    assert "its texts are no valid Unicode" in found["f"]
    assert "gone.png cannot be read (No such file or directory)" in found["e"]


def test_an_image_as_data_url_or_in_lines_is_read_too(tmp_path):
    plain = base64.b64encode(png()).decode()
    lines = "\n".join(plain[at : at + 76] for at in range(0, len(plain), 76))
    records = [record(src_img_b64=text) for text in (f"data:image/png;base64,{plain}", lines)]
    source, facts = opened(write_json(tmp_path / "set.json", records), tmp_path)
    assert set(outcomes(source, facts).values()) == {""}


@pytest.mark.parametrize("cut", ["in a record", "behind one", "other bytes"])
def test_json_that_breaks_off_is_read_as_far_as_it_goes(tmp_path, cut):
    whole = json.dumps([record(), record(), record()])
    ends = {
        "in a record": whole[:-90],
        "behind one": whole[: whole.rindex("}, {") + 1],
        "other bytes": whole[:-90] + "\0" * 40,
    }
    given = tmp_path / "set.json"
    given.write_text(ends[cut])
    source, facts = opened(given, tmp_path)
    assert outcomes(source, facts) == {"physical-0000": "", "physical-0001": ""}
    assert source.broken.startswith(f"{given}: breaks off after 2 samples (")
    assert "\n" not in source.broken
    again = ReadSamples()
    again.open(job_of(given, tmp_path))
    assert again.broken == source.broken, "what was taken out earlier is as broken"


def test_parquet_with_damaged_rows_is_read_as_far_as_it_goes(tmp_path):
    content = bytearray(SETS["gedit"].read_bytes())
    at = content.rindex(b"Remove") if b"Remove" in content else len(content) // 2
    content[at - 3000 : at + 3000] = bytes(6000)
    given = tmp_path / "set.parquet"
    given.write_bytes(content)
    source, facts = opened(given, tmp_path)
    good = [key for key, reason in outcomes(source, facts).items() if not reason]
    assert source.broken or len(good) < 10


def test_a_set_that_breaks_off_at_once_is_refused(tmp_path):
    given = tmp_path / "set.json"
    given.write_text(json.dumps([record()])[:100])
    with pytest.raises(UserError, match="breaks off after 0 samples"):
        opened(given, tmp_path)


def test_a_set_of_which_nothing_can_be_used_is_refused_with_the_first_reason(tmp_path):
    given = write_json(tmp_path / "set.json", [record(src_img_b64=None)])
    with pytest.raises(UserError, match=r"not one sample .* used; sample physical-0000 \(record 1"):
        opened(given, tmp_path)


def test_an_image_that_changes_while_a_run_goes_on_fails(tmp_path):
    folder = write_folder(tmp_path / "set", {"a": png(), "b": png(), "c": png()})
    source, facts = opened(folder, tmp_path)
    (folder / "b.png").write_bytes(png(64, 64))
    (folder / "c.png").unlink()
    found = outcomes(source, facts)
    assert found["a"] == ""
    assert "its image was 48x32, and is another by now" in found["b"]
    assert "cannot be read (No such file" in found["c"]


def test_pictures_are_read_as_they_are_to_be_shown(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # Orientation: turn by 90 degrees
    images = {
        "turned": png(64, 48, 9, format="jpeg", exif=turned),
        "jpeg": png(64, 48, 9, format="jpeg", quality=95),
        "webp": png(64, 48, 9, format="webp", lossless=True),
    }
    folder = write_folder(tmp_path / "set", images)
    gray, alpha = np.full((40, 40), 7, np.uint8), np.full((40, 40, 4), 5, np.uint8)
    Image.fromarray(gray).save(folder / "jpeg.png", "png")
    Image.fromarray(alpha).save(folder / "webp.png", "png")
    source, facts = opened(folder, tmp_path)
    outputs = outputs_of(source, facts)
    meta = source.read("turned", outputs)
    assert (meta.height, meta.width) == (64, 48)
    for name, value in (("jpeg", 7), ("webp", 5)):
        meta = source.read(name, outputs)
        assert set(outputs["source"][: 40 * 40 * 3]) == {value}
        assert not outputs["source"][40 * 40 * 3 :].any()
        assert (meta.height, meta.width) == (40, 40)


def test_grey_of_16_bits_is_refused_not_clipped(tmp_path):
    folder = write_folder(tmp_path / "set", {"a": png(), "b": png()})
    Image.fromarray(np.full((40, 40), 40000, np.uint16)).save(folder / "b.png")
    source, facts = opened(folder, tmp_path)
    assert "has deep grey (I;16); convert it to 8 bits" in outcomes(source, facts)["b"]
