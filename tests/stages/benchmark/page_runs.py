"""Reports and traces as a run leaves them, for pages; and a set of pictures to look at."""

import json

import numpy as np
from PIL import Image, ImageDraw

from tests.stages.benchmark.judged import HOSTILE


def worker(name, stage, device, busy_s, **others):
    gpu = {"gpu_peak_bytes": 57 << 30, "gpu_utilization": 0.97} if "cuda" in device else {}
    fields = {"items": 8, "cpu_user_s": 1.0, "cpu_system_s": 0.5, "max_rss_bytes": 3 << 30}
    return {
        "name": name,
        "stages": [stage],
        "device": device,
        "pid": 1,
        "busy_s": busy_s,
        "restarts": 0,
        **fields,
        **gpu,
        **others,
    }


def plain_report(**others):
    """Return the report of a run without sections."""
    return {
        "status": "done",
        "pipeline": "edit_score",
        "items": {"done": 8, "failed": 0, "replayed": 0},
        "units": {"name": "samples", "done": 8, "failed": 0},
        "wall_s": 95.5,
        "load_s": 12.25,
        "run_s": 80.0,
        "started_at": "2026-11-22T10:00:00Z",
        "ended_at": "2026-11-22T10:01:35Z",
        "input": "/sets/demo.json",
        "output": "/out/results.json",
        "warnings": ["GPU 1 is shared with others"],
        "failures": [{"reason": f"ValueError: {HOSTILE}", "item": 3, "stage": "edit"}],
        "workers": [worker("edit/0", "edit", "cuda:0", 40.0)],
        "config": {"path": "configs/edit_score.yaml", "sha256": "ab" * 32},
        "versions": {"torch": "2.13.0"},
        "host": {"cores": 2, "kernel": "6.1", "gpus": [{"name": "NVIDIA H200"}]},
        "fingerprint": {"seed": 7},
        **others,
    }


def report_in_sections():
    """Return the report of a run with two."""
    edit = plain_report(
        workers=[
            worker("edit/0", "edit", "cuda:0", 70.0),
            worker("edit/1", "edit", "cuda:1", 66.0, restarts=1),
            worker("save/0", "save", "cpu", 3.0),
        ]
    )
    score = plain_report(
        workers=[worker("score/0", "score", "cuda:0", 6.0)], failures=[], warnings=[]
    )
    whole = plain_report(workers=[], failures=[])
    whole["residency"] = {
        "mode": "phased",
        "why": "all sections at once need 120 GiB on cuda:0, and 80 GiB are free",
        "switches": 1,
        "switch_s": 1.4,
    }
    return {**whole, "sections": {"edit": edit, "score": score}}


def trace_of(num_items=8, hostile=""):
    """Return a trace of two editing workers, one judge beside them, and a sink."""
    tracks = {
        11: "edit/0 cuda:0",
        12: "edit/1 cuda:1",
        13: f"score/0 cuda:0{hostile}",
        14: "save/0 cpu",
        10: "run",
        (1 << 25) + 12: "edit/1 cuda:1, restart 1",
        (1 << 23) + 11: "edit/0 cuda:0, copies in",
    }
    events = [
        {"ph": "M", "name": "thread_name", "pid": 10, "tid": tid, "args": {"name": name}}
        for tid, name in tracks.items()
    ]

    def add(tid, name, begin_s, length_s, cat="run", **args):
        times = {"ts": int(begin_s * 1e6), "dur": int(length_s * 1e6)}
        place = {"pid": 10, "tid": tid, "args": args}
        events.append({"ph": "X", "cat": cat, "name": name, **times, **place})

    add(10, "plan", 0, 2, "step")
    for tid in (11, 12, 13):
        add(tid, "load", 2, 10, "step")
    for item in range(num_items):
        worker_tid = (11, 12)[item % 2]
        if item == num_items - 1:
            worker_tid += 1 << 25
        begin = 12 + 20 * (item // 2)
        add(worker_tid, "edit", begin, 19, item=item, failed=item == 3)
        add(worker_tid, "wait: item", begin + 19, 1, "wait")
        add(14, "save", begin + 19, 0.4, item=item)
        add((1 << 23) + 11, "copy in", begin, 0.1, "copy in", item=item)
    add(13, "score", 34, 3, item=0)
    events.append(
        {"ph": "s", "cat": "item", "name": "item", "pid": 10, "tid": 11, "ts": 1, "id": 1}
    )
    return {"displayTimeUnit": "ms", "traceEvents": events}


def write_run(folder, report, trace=None):
    """Write both as a run does; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "trace.json").write_text(json.dumps(trace or trace_of()))
    return folder / "report.json", folder / "trace.json"


def edits_lines(ids, **others):
    """Return edits.jsonl of these samples."""
    fields = {"steps": 50, "passes": 100, "tflop": 19800.0, "source": [48, 64], "edited": [48, 64]}
    lines = (
        {"id": each, "seed": 1000 + at, "reason": None, "instruction": HOSTILE, **fields, **others}
        for at, each in enumerate(ids)
    )
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines)


def picture(number, size=(384, 512), *, edited=False):
    """Return a scene [height, width, 3]: a house under a sky, and edited at dusk with lights."""
    height, width = size
    sky = ((250, 170, 110), (60, 40, 90)) if edited else ((200, 225, 250), (90, 150, 220))
    ramp = np.linspace(0, 1, height)[:, None, None]
    pixels = np.array(sky[1]) * (1 - ramp) + np.array(sky[0]) * ramp
    image = Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height * 3 // 4, width, height), (60, 90, 50) if edited else (90, 150, 70))
    left = 60 + 37 * (number % 8)
    draw.rectangle((left, 200, left + 140, 300), (150, 90, 70))
    draw.polygon(((left - 15, 200), (left + 70, 130), (left + 155, 200)), (90, 45, 45))
    draw.rectangle((left + 50, 230, left + 85, 265), (255, 225, 120) if edited else (70, 80, 95))
    draw.ellipse((380, 40, 440, 100), (245, 240, 220) if edited else (255, 220, 90))
    return np.asarray(image)
