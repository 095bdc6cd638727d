"""Tells whether a video file is whole, from what reading all its packets brought up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from stages.video.decode import FrameIndex

_CUT = ("ended prematurely", "partial file")  # as Matroska's and MP4's demuxers say it
_GAP = 1.7  # usual steps from frame to frame; a lost frame makes a step of 2, telecine 1.5


@dataclass(slots=True)
class Reading:
    """What demuxing a video stream brought up, beside its packets."""

    path: str
    errors: list[str] = field(default_factory=list)  # that the demuxer raised
    said: list[str] = field(default_factory=list)  # that it went on behind
    num_corrupt: int = 0  # packets
    ends_torn: bool = False  # the last packet or frame is only half there
    seconds: float = 0.0  # that the file says it has; 0 = it does not say
    num_missing: int = 0  # packets that an index names and nobody found
    has_early_index: bool = False  # it names them by their place, so the missing ones lie behind
    num_undecodable: int = 0  # where everything was decoded

    @contextmanager
    def watch(self, container: InputContainer) -> Iterator[None]:
        """Note what the demuxer of `container` logs as an error: most are not raised."""
        level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # else what was last said of another file is not heard
        try:
            with av.logging.Capture() as logs:
                yield
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skips)
        self.said += [text.strip() for _, name, text in logs if name == container.format.name]

    def compare(self, container: InputContainer, stream: VideoStream, num_packets: int) -> None:
        """Compare what was read with what the file's headers say."""
        names = container.format.name.split(",")
        self.has_early_index = "mp4" in names
        is_counted = "avi" in names and stream.codec_context.pix_fmt != "pal8"  # no palettes in it
        if self.has_early_index or is_counted:
            self.num_missing = max(0, len(stream.index_entries) - num_packets)
        if stream.duration is not None and stream.time_base is not None:
            self.seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            self.seconds = container.duration / av.time_base

    def broken(self, index: FrameIndex) -> str:
        """Return one line that says why the file is not whole, or nothing."""
        span = int(index.pts[-1] - index.pts[0]) + index.last_duration
        have = float(span * index.time_base)
        rest = "what is there is interpolated"
        if self._is_cut():
            of = f" of {self.seconds:.1f} s" if self.seconds >= have + 0.1 else ""
            return f"{self.path}: cut short, ends after {have:.1f} s{of}; {rest}"
        if self.num_missing:
            return f"{self.path}: damaged, {self.num_missing} frame(s) are missing; {rest}"
        if self.num_undecodable:
            lost = f"{self.num_undecodable} part(s) of it cannot be decoded"
            return f"{self.path}: damaged, {lost}; {rest}"
        if self._complaint() and (gap := _first_gap(index)):
            where = f"frames are missing after {gap:.1f} s"
            return f"{self.path}: damaged, {where} ({self._complaint()}); {rest}"
        return ""

    def warnings(self) -> list[str]:
        """Return what reading complained of; nobody knows whether it is to be seen."""
        complaint = self._complaint()
        return [f"{self.path}: read with errors ({complaint})"] if complaint else []

    def _is_cut(self) -> bool:
        is_said = any(phrase in text for text in self.said for phrase in _CUT)
        is_behind_end = self.has_early_index and bool(self.num_missing)
        return is_said or self.ends_torn or is_behind_end or _is_riff_cut(self.path)

    def _complaint(self) -> str:
        corrupt = [f"{self.num_corrupt} damaged packet(s)"] if self.num_corrupt else []
        found = [*self.errors, *self.said, *corrupt]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return found[0] + more if found else ""


def _first_gap(index: FrameIndex) -> float:
    """Return after how many seconds a step is longer than usual; 0 = none is."""
    steps = np.diff(index.pts)
    places = np.flatnonzero(steps > _GAP * np.median(steps)) if steps.size else steps
    if not places.size:
        return 0.0
    return float(int(index.pts[places[0]] - index.pts[0]) * index.time_base) or 0.01


def _is_riff_cut(path: str) -> bool:
    """Return whether an AVI is shorter than its first 8 bytes say."""
    with open(path, "rb") as file:
        head = file.read(8)
    return head[:4] == b"RIFF" and int.from_bytes(head[4:], "little") + 8 > os.path.getsize(path)
