"""What is written of a file that is cut short or damaged: no more than was read, in its time."""

from fractions import Fraction

import av
import pytest

from stages.base import Item, Job, UserError
from stages.video import ReadVideo, WriteVideo
from tests.stages.video.clips import double, packets, pictures, sent, shown, tone, write_clip
from tests.stages.video.damaged import FASTSTART, cut, overwrite, write_long


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_what_there_is_of_a_cut_file_is_written_with_its_sound(tmp_path, suffix):
    clip = tmp_path / f"clip.{suffix}"
    write_long(clip, sound=True, **(FASTSTART if suffix == "mp4" else {}))
    sound = packets(clip, "audio")
    output = tmp_path / "out.mp4"
    _, facts, durable = double(cut(clip), output, tmp_path)
    assert len(shown(output)) == 2 * facts.num_frames - 1
    assert sum(part.counts["frame pairs"] for part in durable) == facts.num_pairs
    kept = packets(output, "audio")
    assert 5 < len(kept) < len(sound)
    assert [data for data, _ in kept] == [data for data, _ in sound[: len(kept)]]


def written(tmp_path, broken, n=24, pairs=3, output="out.mp4", **options):
    """Double a file whose windows `broken` cannot be read; return sink and what was durable."""
    clip = tmp_path / "clip.mkv"
    write_clip(clip, n, codec="ffv1", options={"g": "1", "slicecrc": "1"})
    for key in broken:
        overwrite(clip, key * pairs + 1, length=200)
    return double(clip, tmp_path / output, tmp_path, pairs=pairs, crf=0, **options)


def test_of_a_window_that_cannot_be_read_nothing_is_written_and_times_stay(tmp_path):
    _, _, durable = written(tmp_path, broken=[2])
    times = [round(time * 50) for time in shown(tmp_path / "out.mp4")]
    assert times == [*range(12), *range(18, 47)]
    assert sum(part.counts["frame pairs"] for part in durable) == 20
    assert [item for part in durable for item in part.items] == list(range(8))
    assert len(pictures(tmp_path / "out.mp4")) == 41


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("n", "pairs"), [(13, 2), (24, 3)])
def test_the_last_frame_is_shown_to_the_end_where_those_behind_it_are_lost(
    tmp_path, n, pairs, suffix
):
    last = (n - 2) // pairs
    output = f"out.{suffix}"
    written(tmp_path, [last], n, pairs, output=output)
    assert max(shown(tmp_path / output)) == Fraction(last * pairs * 2 - 1, 50)
    with av.open(str(tmp_path / output)) as container:
        assert container.duration / av.time_base == n / 25


@pytest.mark.parametrize("broken", [[0, 1], [2, 3], [6, 7], [0, 1, 6, 7]])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_segment_without_a_frame_is_closed_and_left_out(tmp_path, broken, replicas):
    _, _, durable = written(tmp_path, broken, replicas=replicas)
    gone = {time for key in broken for time in range(6 * key, 6 * key + 6)}
    gone |= {46} if 7 in broken else set()
    times = [round(time * 50) for time in shown(tmp_path / "out.mp4")]
    first = min(set(range(47)) - gone)
    assert [time + (first if times[0] == 0 else 0) for time in times] == sorted(
        set(range(47)) - gone
    )
    assert sorted(item for part in durable for item in part.items) == list(range(8))
    assert not list((tmp_path / "work" / "segments").iterdir())


def test_a_video_without_one_window_that_can_be_read_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"clip\.mkv: not one frame could be read; nothing is"):
        written(tmp_path, broken=range(8))
    assert not (tmp_path / "out.mp4").exists()


def test_a_segment_that_is_gone_is_not_taken_for_an_empty_one(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 13)
    job = Job(input=clip, output=str(tmp_path / "out.mp4"), work_dir=str(tmp_path / "work"))
    source = ReadVideo(pairs=3)
    sink, facts = WriteVideo(threads=1, segment_windows=2), source.open(job)
    sink.open(facts)
    for key in range(4):
        sink.write(*sent(source, facts, key))
    (tmp_path / "work" / "segments" / "000000.nut").unlink()
    with pytest.raises(FileNotFoundError, match=r"000000\.nut"):
        sink.finish(range(4))
    assert not (tmp_path / "out.mp4").exists()
    source.close()


def test_a_window_that_comes_again_after_it_failed_is_written(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 13)
    job = Job(input=clip, output=str(tmp_path / "out.mp4"), work_dir=str(tmp_path / "work"))
    source = ReadVideo(pairs=3)
    sink, facts = WriteVideo(threads=1, segment_windows=2), source.open(job)
    sink.open(facts)
    sink.write(Item(index=0, attempt=0, meta=None, failed="not read"), {}, None)
    for key in range(4):
        sink.write(*sent(source, facts, key))
    sink.finish(range(4))
    assert len(shown(tmp_path / "out.mp4")) == 25
    source.close()


def test_sound_that_is_torn_is_left_out_and_said(tmp_path):
    clip = tmp_path / "clip.mp4"
    write_long(clip, sound=True, **FASTSTART)
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    sound = packets(clip, "audio")
    place, size = places[60]
    clip.write_bytes(clip.read_bytes()[: place + size // 2])
    sink, _, _ = double(clip, tmp_path / "out.mp4", tmp_path)
    assert sink.warnings == ["audio track 1: 1 damaged packet(s) left out"]
    assert packets(tmp_path / "out.mp4", "audio") == sound[:60]


def test_tracks_that_cannot_be_written_do_not_lose_the_video(tmp_path):
    clip = tmp_path / "clip.mkv"
    write_clip(clip, 60, extra=tone(2.4, rate=48000, codec="eac3"))
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    place, size = places[20]
    content = bytearray(clip.read_bytes())
    sync = content.index(bytes([0x0B, 0x77]), place)
    content[sync : place + size] = bytes(place + size - sync)
    clip.write_bytes(content)
    sink, _, _ = double(clip, tmp_path / "out.mp4", tmp_path)
    (line,) = sink.warnings
    assert line.startswith("all other tracks are left out: mp4 refuses them (Invalid data")
    assert len(shown(tmp_path / "out.mp4")) == 119
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
