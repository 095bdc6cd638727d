"""The ends of a pipeline that is measured with video files, and a clip to measure it on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.frame import PictureType

from stages.base import Durable, Item, Job, TensorSpec
from stages.video import ReadVideo, WriteVideo
from stages.window import VideoFacts, WindowMeta
from tools.bench_stages import Bytes, Notes

PROJECT = Path(__file__).resolve().parent.parent
DEMO = PROJECT / "configs" / "demo" / "clip.mp4"
RATE = 24
ENCODER_THREADS = 8  # fixed, so that the clip does not depend on the host


class TimedWriter(WriteVideo):
    """`WriteVideo`, which also writes down when each window was taken and encoded."""

    def open(self, facts: VideoFacts) -> None:
        """Open the output; forget the last job."""
        super().open(facts)
        self._notes = Notes(facts.job.work_dir)

    def write(
        self, item: Item[WindowMeta], inputs: Mapping[str, Bytes], meta: WindowMeta | None
    ) -> int:
        """Encode one window, then look at the clock."""
        num_pairs = super().write(item, inputs, meta)
        self._notes.add(item.index, num_pairs, "")
        return num_pairs

    def commit(self) -> list[Durable]:
        """Return what became durable."""
        durable = super().commit()
        if durable:
            self._notes.close_segment()
        return durable


class HeldVideo(ReadVideo):
    """The first windows of a file from memory, again and again, and means as frames between.

    For a sink that is measured without decoder and model, on pictures that can be compressed as
    pictures can.
    """

    writes = ("frames", "middle")

    def __init__(self, *, pairs: int = 16, threads: int = 2, segment_windows: int = 4) -> None:
        super().__init__(pairs=pairs, threads=threads, cut_threshold=0)
        self._num_held = segment_windows

    def open(self, job: Job) -> VideoFacts:
        """Open the file and decode what is held."""
        facts = super().open(job)
        shape = super().specs(facts)["frames"].shape
        self._held: list[tuple[Bytes, Bytes]] = []
        for key in range(min(self._num_held, facts.num_windows)):
            frames = np.empty(shape, np.uint8)
            super().read(key, {"frames": frames})
            earlier, later = frames[:-1], frames[1:]
            middle = earlier // 2 + later // 2
            self._held.append((frames, middle[:, : facts.color_bytes]))
        return facts

    def specs(self, facts: VideoFacts) -> dict[str, TensorSpec]:
        """Return `frames` and `middle` [K, color_bytes]."""
        middle = TensorSpec((facts.pairs_per_item, facts.color_bytes), "uint8")
        return {**super().specs(facts), "middle": middle}

    def read(self, key: int | str, outputs: Mapping[str, Bytes]) -> WindowMeta:
        """Copy a window; its times are those of window `key` of a steady clip."""
        window = int(key)
        outputs["frames"][:], outputs["middle"][:] = self._held[window % len(self._held)]
        facts = self._opened()[0]
        first = window * facts.pairs_per_item
        num_pairs = min(facts.pairs_per_item, facts.num_pairs - first)
        pts = tuple(int(ticks) for ticks in self._pts[first : first + num_pairs + 1])
        return WindowMeta(num_pairs=num_pairs, pts=pts, cuts=(False,) * num_pairs)


def make_clip(path: Path, *, width: int, height: int, num_frames: int) -> None:
    """Encode a clip of `num_frames`: the demo clip enlarged, there and back until it is enough."""
    with av.open(str(path), "w") as container:
        options = {"crf": "18", "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # PyAV's default cuts each frame into as many slices as there are cores.
        stream.codec_context.thread_type = ThreadType.FRAME
        stream.codec_context.thread_count = ENCODER_THREADS
        pictures = _demo_frames(width, height)
        there_and_back = cycle(pictures + pictures[-2:0:-1])
        for number, picture in enumerate(islice(there_and_back, num_frames)):
            picture.pict_type = PictureType.NONE  # the encoder decides
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _demo_frames(width: int, height: int) -> list[av.VideoFrame]:
    def decoded() -> Iterator[av.VideoFrame]:
        with av.open(str(DEMO)) as container:
            yield from container.decode(video=0)

    return [
        frame.reformat(width=width, height=height, format="yuv420p", interpolation="BICUBIC")
        for frame in decoded()
    ]
