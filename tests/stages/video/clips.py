"""Small real video files, and a pipeline of source and sink alone, for the tests of this folder."""

from fractions import Fraction

import av
import numpy as np

from stages.base import Item, Job
from stages.video import ReadVideo, WriteVideo
from stages.video.decode import BrokenFrameError

ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,16

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def planes(number, size, pix_fmt="yuv420p"):
    """Picture `number`: waves that move a little from picture to picture."""
    width, height = size
    frame = av.VideoFrame(width, height, pix_fmt)
    for index, plane in enumerate(frame.planes):
        wide = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        y, x = np.mgrid[0 : wide.shape[0], 0 : wide.shape[1]]
        waves = 50 * np.sin(x / 7 + 0.2 * number + index) + 40 * np.cos(y / 5 - 0.1 * number)
        wide[:] = 120 + waves
    return frame


def deep_planes(number, size, pix_fmt):
    """Picture `number` in any planar format: a ramp over every level that moves, and another."""
    frame = av.VideoFrame(*size, pix_fmt)
    bits = max(part.bits for part in frame.format.components)
    for index, plane in enumerate(frame.planes):
        samples = np.frombuffer(plane, np.uint8).view(np.uint8 if bits == 8 else "<u2")
        wide = samples.reshape(plane.height, -1)
        y, x = np.mgrid[0 : wide.shape[0], 0 : wide.shape[1]]
        wide[:] = (13 * x + 7 * y + 5 * number + 40 * index) % 2**bits
    return frame


def write_clip(
    path,
    n=10,
    *,
    size=(64, 48),
    codec="libx264",
    rate=25,
    time_base=Fraction(1, 12800),
    pts=None,
    pix_fmt="yuv420p",
    options=(),
    picture=planes,
    setup=lambda container, stream: None,
    extra=lambda container: (),
    **container_options,
):
    """Encode `n` pictures; `pts` in ticks of `time_base`, evenly spaced by default."""
    step = int(1 / (rate * time_base))
    with av.open(str(path), "w", **container_options) as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1", **dict(options)})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        setup(container, stream)
        packets = list(extra(container))
        for number in range(n):
            frame = picture(number, size, pix_fmt)
            frame.pts = pts[number] if pts else number * step
            frame.time_base = time_base
            packets += stream.encode(frame)
        packets += stream.encode()
        container.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
    return str(path)


def tone(seconds=0.4, rate=44100, codec="aac", start=0, language="ita"):
    """An `extra` for `write_clip`: a track of sound."""

    def extra(container):
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        stream.metadata["language"] = language
        wave = (8000 * np.sin(np.arange(int(rate * seconds)) / 20)).astype(np.int16)[None]
        samples = av.AudioFrame.from_ndarray(wave, "s16", "mono")
        samples.sample_rate, samples.pts = rate, start
        return [*stream.encode(samples), *stream.encode()]

    return extra


def subtitles(codec="srt", language="fra"):
    """An `extra` for `write_clip`: two lines of text."""

    def extra(container):
        stream = container.add_stream(codec)
        stream.codec_context.subtitle_header = ASS_HEADER
        stream.metadata["language"] = language
        stream.time_base = Fraction(1, 1000)
        packets = []
        for start, text in ((40, b"Bonjour"), (200, b"Au revoir")):
            packet = av.Packet(text)
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), stream
            packets.append(packet)
        return packets

    return extra


def opened(path, pairs=3, *, threads=1, **options):
    """A `ReadVideo` with its facts."""
    source = ReadVideo(pairs=pairs, threads=threads, **options)
    return source, source.open(Job(input=str(path), output="/none", work_dir="/none"))


def read_window(source, facts, key):
    """Frames (a fresh array) and meta of one window."""
    frames = np.full((facts.pairs_per_item + 1, facts.frame_bytes), 99, np.uint8)
    meta = source.read(key, {"frames": frames})
    return frames, meta


def blend(frames, facts=None):
    """What a model would answer: the mean of both frames of each pair, without alpha."""
    if facts is not None:
        frames = frames[:, : facts.color_bytes].view(np.uint8 if facts.bit_depth == 8 else "<u2")
    return ((frames[:-1].astype(np.uint32) + frames[1:]) // 2).astype(frames.dtype).view(np.uint8)


def double(source_path, output, tmp_path, *, pairs=3, replicas=1, failed=(), job=None, **options):
    """Run source and sink over a whole file; return the sink, the facts and what was durable.

    What the source cannot read comes to the sink without tensors and meta, as a worker sends it.
    """
    job = {"overwrite": False, **(job or {})}
    job = Job(input=str(source_path), output=str(output), work_dir=str(tmp_path / "work"), **job)
    source = ReadVideo(pairs=pairs, threads=1)
    facts = source.open(job)
    sinks = [WriteVideo(**{"threads": 1, "segment_windows": 2} | options) for _ in range(replicas)]
    for sink in sinks:
        sink.open(facts)
    durable = []
    for key in range(facts.num_windows):
        sink = sinks[key // sinks[0].items_per_segment % replicas]
        sink.write(*sent(source, facts, key, has_failed=key in failed))
        durable += sink.commit()
    sinks[0].finish(sorted(item for part in durable for item in part.items))
    source.close()
    for sink in sinks:
        sink.close()
    return sinks[0], facts, durable


def sent(source, facts, key, *, has_failed=False):
    """Item, inputs and meta of one window, as a sink gets them."""
    try:
        frames, meta = read_window(source, facts, key)
    except BrokenFrameError as error:
        return Item(index=key, attempt=0, meta=None, failed=str(error)), {}, None
    inputs = {"frames": frames}
    if has_failed:
        return Item(index=key, attempt=0, meta=meta, failed="it broke"), inputs, meta
    inputs["middle"] = blend(frames, facts)
    return Item(index=key, attempt=0, meta=meta), inputs, meta


def shown(path):
    """Times in seconds of all frames, exactly."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def pictures(path):
    """All frames as planar arrays."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def packets(path, kind):
    """Bytes and times of all packets of the first track of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [
            (bytes(packet), packet.pts * packet.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None
        ]


def length(path):
    """Seconds of the video stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.duration * stream.time_base
