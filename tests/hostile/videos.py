"""Hostile videos: damaged files of every usual container, boxes that lie, playlists."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np

from stages.base import Item, Job, UserError
from stages.video import ReadVideo, WriteVideo
from stages.video.decode import BrokenFrameError
from tests.hostile.configs import check_line
from tests.hostile.corpus_files import corpus
from tests.hostile.mutate import damaged, extreme
from tests.stages.video.clips import blend, subtitles, tone, write_clip

NUM_FRAMES, SIZE = 9, (48, 32)
MAX_WINDOWS = 6  # that are read of one file; a damaged header may promise millions
H264 = {"options": {"g": "4", "preset": "ultrafast"}}
KINDS = {
    "first.mp4": {**H264, "extra": tone(), "container_options": {"movflags": "faststart"}},
    "pieces.mp4": {**H264, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "sound.mkv": {**H264, "extra": tone()},
    "text.mkv": {**H264, "extra": subtitles()},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "4"}},
    "vp8.webm": {"codec": "libvpx", "options": {"cpu-used": "8", "g": "4"}},
    "mpeg4.avi": {"codec": "mpeg4", "extra": tone(codec="mp2"), "options": {"g": "4"}},
    "h264.ts": {**H264, "extra": tone()},
    "ffv1.mkv": {"codec": "ffv1", "options": {"g": "1", "slicecrc": "1"}},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "mpeg2.mpg": {"codec": "mpeg2video", "time_base": Fraction(1, 25)},
    "h264.flv": H264,
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8", "time_base": Fraction(1, 100)},
}
# Where containers keep sizes, counts, times and kinds.
LANDMARKS = [
    *(b"moov mvhd tkhd mdhd hdlr stsd avc1 avcC stts ctts stss stsc stsz stco elst edts".split()),
    *(b"trun tfhd tfdt moof sidx mdat colr pasp mp4a esds apch apcn ftyp".split()),
    *(b"avih strh strf movi idx1 00dc 01wb LIST RIFF icpf onMetaData".split()),
    *(b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75"),
    *(b"\x2a\xd7\xb1", b"\x44\x89", b"\xb0\x82", b"\xba\x82", b"\xb0\x81", b"\xe7\x81"),
    *(b"\x1c\x53\xbb\x6b", b"\x53\xab", b"\x63\xa2", b"\x23\xe3\x83", b"\x47\x40", b"FLV\1"),
    *(b"\x00\x00\x01\xb3", b"\x00\x00\x01\xba", b"\x00\x00\x01\x67"),
]
OTHERS = [
    "ffconcat version 1.0\nfile {0}\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "<MPD><Period><AdaptationSet><BaseURL>{0}</BaseURL></AdaptationSet></Period></MPD>",
]

Case = tuple[str, bytes, int, str]  # name, content, threads, name of an output or nothing


class Surface:
    """Opens and reads a video, and writes some of them doubled, with all their tracks."""

    max_bytes = 3 * 2**30  # a header may say 16384x16384, and that is a video to us

    def __init__(self, folder: Path) -> None:
        warnings.simplefilter("ignore")
        self._folder = folder
        self._clips = {}
        for name, options in KINDS.items():
            write_clip(folder / name, NUM_FRAMES, size=SIZE, **options)
            self._clips[name] = (folder / name).read_bytes()
        self._others = [*self._clips.values(), *corpus("videos").values()]

    def make(self, rng: Random) -> Case:
        name = rng.choice(list(self._clips))
        content, kind = self._clips[name], rng.randrange(20)
        if kind == 0:
            other = rng.choice(list(self._clips))
            text = rng.choice(OTHERS).format(rng.choice((other, self._folder / other)))
            content = text.encode()
            name = rng.choice((name, "list.m3u8", "list.ffconcat", "a.sdp", "a.mpd"))
        elif kind < 12:
            content = _at_landmarks(rng, content)
        else:
            content = damaged(rng, content, self._others)
        output = rng.choice(("out.mkv", "out.mp4")) if rng.random() < 0.15 else ""
        return f"hostile-{name}", content, rng.choice((1, 1, 2)), output

    def judge(self, case: Case) -> None:
        name, content, threads, output = case
        path = self._folder / name
        path.write_bytes(content)
        source = ReadVideo(pairs=3, threads=threads)
        try:
            self._read(source, path, output)
        except UserError as error:
            check_line(str(error), ("hostile-", "out."))
        else:
            assert not content.startswith((b"ffconcat", b"#EXTM3U", b"v=0", b"<MPD"))
        finally:
            source.close()
            path.unlink()
            for left in self._folder.glob("out.*"):
                left.unlink()

    def _read(self, source: ReadVideo, path: Path, output: str) -> None:
        job = Job(
            input=str(path),
            output=str(self._folder / (output or "none.mkv")),
            work_dir=str(self._folder / "work"),
        )
        facts = source.open(job)
        assert facts.num_frames >= 2
        assert all("\n" not in said for said in (source.broken, *source.warnings))
        assert facts.num_windows == len(source.keys())
        assert facts.frame_bytes >= 32 * 32
        sink = None
        if output and facts.num_windows <= MAX_WINDOWS and facts.frame_bytes < 2**22:
            sink = WriteVideo(threads=1, preset="ultrafast", segment_windows=2)
            sink.open(facts)
        rows = np.empty((facts.pairs_per_item + 1, facts.frame_bytes), np.uint8)
        last = -math.inf
        try:
            for key in range(min(facts.num_windows, MAX_WINDOWS)):
                meta, failed = None, ""
                try:
                    meta = source.read(key, {"frames": rows})
                except BrokenFrameError as error:
                    failed = str(error)
                    assert "\n" not in failed
                else:
                    assert 1 <= meta.num_pairs == len(meta.pts) - 1 == len(meta.cuts)
                    assert list(meta.pts) == sorted(set(meta.pts))
                    assert meta.pts[0] >= last
                    last = meta.pts[-1]
                if sink is not None:
                    inputs = {} if meta is None else {"frames": rows, "middle": blend(rows, facts)}
                    sink.write(Item(index=key, attempt=0, meta=meta, failed=failed), inputs, meta)
                    sink.commit()
            if sink is not None:
                sink.finish(range(facts.num_windows))
                assert all("\n" not in said for said in sink.warnings)
        finally:
            if sink is not None:
                sink.close()


def _at_landmarks(rng: Random, content: bytes) -> bytes:
    """Return a file whose boxes say something else, near where they say it."""
    data = bytearray(content)
    present = [mark for mark in LANDMARKS if mark in content]
    for _ in range(rng.randint(1, 3)):
        mark = rng.choice(present)
        places = [at for at in range(len(data)) if data.startswith(mark, at)][:20]
        if not places:
            continue
        at = max(0, rng.choice(places) + rng.randint(-8, 40))
        width = rng.choice((1, 2, 4, 4, 4, 8))
        number = extreme(rng) if rng.random() < 0.7 else rng.randrange(256)
        data[at : at + width] = (number % 256**width).to_bytes(width, "big")
    return bytes(data)
