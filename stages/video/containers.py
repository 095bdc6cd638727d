"""What a kind of file can hold: found out by writing its header to nowhere, before any work.

FFmpeg says of many a codec only there that it is refused: AV1 in MOV, H.264 in Ogg, Opus in MOV.
"""

from __future__ import annotations

import io
from pathlib import Path

import av
from av.stream import Stream

from stages.base import UserError
from stages.video.encode import Encoding, add_encoder
from stages.window import VideoFacts

# These take anything; what they have no code for comes back as data, which nobody can play.
_KNOWN_CODECS: dict[str, frozenset[str]] = {
    "mpegts": frozenset(
        (
            *("h264", "hevc", "mpeg1video", "mpeg2video"),
            *("aac", "aac_latm", "ac3", "dts", "eac3", "mp2", "mp3", "opus", "truehd"),
            *("dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle"),
        )
    ),
    "mpeg": frozenset(("mpeg1video", "mpeg2video", "ac3", "dts", "mp2", "mp3")),
}
# FFmpeg's names of those that hold times and headers in one file. Its others open files of their
# own, whatever they are told to write to (DASH, HLS, pictures), or hold bare packets (.h264, .y4m).
_FORMATS = {
    ".mp4": "mp4",
    ".m4v": "ipod",
    ".mov": "mov",
    ".3gp": "3gp",
    ".3g2": "3g2",
    ".mkv": "matroska",
    ".webm": "webm",
    ".nut": "nut",
    ".avi": "avi",
    ".flv": "flv",
    ".f4v": "f4v",
    ".wmv": "asf",
    ".asf": "asf",
    ".ts": "mpegts",
    ".m2ts": "mpegts",
    ".mts": "mpegts",
    ".mpg": "mpeg",
    ".mpeg": "mpeg",
}
_BARE_CODECS = frozenset({"rawvideo"})  # no container gives its packets back as they were


def container_name(output: Path) -> str:
    """Return FFmpeg's name of the container that the suffix of `output` stands for, "" if none."""
    return _FORMATS.get(output.suffix.lower(), "")


def check_container(output: Path, facts: VideoFacts, encoding: Encoding) -> None:
    """Write the header of such a file to nowhere.

    Raises:
        UserError: its suffix names no container, or one that cannot hold the encoder's packets.
    """
    name = container_name(output)
    if not name:
        accepted = " ".join(_FORMATS)
        raise UserError(f"{output}: no video container {output.suffix!r}; use one of {accepted}")
    way_out = "use .mkv" if name != "matroska" else "use another codec, such as libx264"
    refusal = f"{output}: {name} cannot hold {encoding.codec}; {way_out}"
    codec = av.Codec(encoding.codec, "w").canonical_name
    if codec in _BARE_CODECS:
        raise UserError(f"{output}: {encoding.codec} cannot be read back; use ffv1 with .mkv")
    if not _is_known(name, codec):
        raise UserError(refusal)
    try:
        with av.open(io.BytesIO(), "w", format=name) as trial:
            add_encoder(trial, facts, encoding)
            trial.start_encoding()
    except (ValueError, av.FFmpegError) as error:
        raise UserError(refusal) from error


def can_hold(container: str, track: Stream) -> bool:
    """Return whether a copy of `track` can lie in a file of the format `container`."""
    context = track.codec_context
    if context is not None and not _is_known(container, context.codec.canonical_name):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(track)
            trial.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def _is_known(container: str, codec: str) -> bool:
    return container not in _KNOWN_CODECS or codec in _KNOWN_CODECS[container]
