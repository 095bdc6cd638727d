"""Files that are cut short or damaged, for the tests of this folder."""

import av
import numpy as np

from stages.video.decode import BrokenFrameError
from tests.stages.video.clips import opened, read_window, tone, write_clip

FASTSTART = {"container_options": {"movflags": "faststart"}}
FRAGMENTS = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "10"}}
KINDS = {
    "Matroska": ("clip.mkv", {}),
    "WebM": ("clip.webm", VP9),
    "AVI": ("clip.avi", {"codec": "mpeg4", "options": {"g": "10", "qmin": "2", "qmax": "3"}}),
    "MP4, index first": ("clip.mp4", FASTSTART),
    "MP4 in fragments": ("clip.mp4", FRAGMENTS),
    "Flash": ("clip.flv", {}),
}
GOPS = {"g": "10", "qp": "10"}


def write_long(path, n=60, *, sound=False, **options):
    options = {"options": GOPS, **options}
    extra = {"extra": tone(n / 25)} if sound else {}
    return write_clip(path, n, size=(96, 64), **options, **extra)


def cut(path, share=0.5):
    """Take away the end of a file; return its path."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def overwrite(path, number, length=None):
    """Make noise of the end of packet `number` of the video, but of its header."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    position, size = places[number]
    length = min(length or size, size - 16)
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(1).integers(0, 255, length).astype(np.uint8)
    content[position + size - length : position + size] = noise.tobytes()
    path.write_bytes(content)


def make_noise(path, length):
    """Make noise of the middle of a file."""
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(1).integers(0, 255, length).astype(np.uint8).tobytes()
    content[len(content) // 2 : len(content) // 2 + length] = noise
    path.write_bytes(content)


def outcomes(path, pairs=5, threads=1):
    """What reading each window gives: its meta, or what it raises."""
    source, facts = opened(path, pairs=pairs, threads=threads)
    found = []
    for key in range(facts.num_windows):
        try:
            found.append(read_window(source, facts, key)[1])
        except BrokenFrameError as error:
            found.append(str(error))
    source.close()
    return found, source, facts
