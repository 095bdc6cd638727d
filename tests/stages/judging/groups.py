"""Judge groups as a source makes them, in numpy or torch, and a server to ask about them."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from stages.base import Item, Job
from stages.benchmark.facts import GroupFacts, GroupMeta, Member

JOB = Job(input="/in", output="/out", work_dir="/work")


def member(row, *, state="edited", copy_of=None, source=(96, 64), edited=(64, 96), **said):
    told = {"group": "physical", "language": "en", "instruction": f"Move the ball {row} steps."}
    reason = "out of paint" if state == "failed" else ""
    good = row if copy_of is None else copy_of
    return Member(
        id=f"s{row}",
        **(told | said),
        source=source,
        edited=edited if state == "edited" else (0, 0),
        state=state,
        reason=reason,
        copy_of=good,
    )


def pixels_of(size, seed):
    """Return a picture [height, width, 3] of a few large tiles, unlike any other seed's."""
    height, width = size
    tiles = np.random.default_rng(seed).integers(0, 256, (3, 2, 3), np.uint8)
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 2 // width
    return tiles[rows][:, columns]


class Group:
    """A group with its tensors: facts, meta and inputs by name."""

    def __init__(self, members, *, rows=None, max_bytes=200 * 200 * 3):
        rows = rows or len(members)
        self.facts = GroupFacts(
            job=JOB,
            num_samples=len(members),
            group_size=rows,
            max_source_bytes=max_bytes,
            max_edited_bytes=max_bytes,
            max_instruction_bytes=4096,
        )
        self.meta = GroupMeta(members=tuple(members))
        self.inputs = {
            "sources": np.zeros((rows, self.facts.max_source_bytes), np.uint8),
            "edits": np.zeros((rows, self.facts.max_edited_bytes), np.uint8),
        }
        for row in range(rows):
            own = members[row] if row < len(members) else members[0]
            if own.copy_of < 0:
                continue
            shown = members[own.copy_of]
            seed = int(shown.id[1:])
            for name, size, salt in (("sources", shown.source, 0), ("edits", shown.edited, 100)):
                flat = pixels_of(size, seed + salt).reshape(-1)
                self.inputs[name][row, : flat.size] = flat

    def only(self, row):
        """Return the group of this row's member alone."""
        return Group([replace(self.meta.members[row], copy_of=0)])

    def run(self, judge, **item):
        """Prepare `judge` for this group and run it; return what came of it."""
        judge.prepare(self.facts, 1)
        outputs = self.views(judge, judged=np.full(self.facts.group_size, 7, np.uint8))
        meta = judge.run(self.views(judge), outputs, self.item(**item))
        self.judged = outputs["judged"].tolist()
        return meta

    def views(self, judge, **arrays):
        """Return a judge's views of what it is given, or of `arrays`."""
        named = {name: view.copy() for name, view in (arrays or self.inputs).items()}
        if judge.library == "numpy":
            return named
        import torch

        return {name: torch.from_numpy(view) for name, view in named.items()}

    def item(self, **item):
        return Item(index=0, attempt=0, meta=self.meta, **item)


class Server(ThreadingHTTPServer):
    """Answers as `behave(request, number)` says: a text, or a function of the handler."""

    daemon_threads = True

    def __init__(self, behave, models=("judge",)):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.models = models
        self.asked = []  # requests, with their headers
        self.stopped = threading.Event()  # for whoever is slow

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        send_json(self, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        self.server.asked.append((request, dict(self.headers), self.path))
        answer = self.server.behave(request, len(self.server.asked) - 1)
        if callable(answer):
            answer(self)
        else:
            send_json(self, {"choices": [{"message": {"role": "assistant", "content": answer}}]})

    def log_message(self, *_args):
        pass


def send_json(handler, value, *, status=200):
    send(handler, json.dumps(value).encode(), status=status)


def send(handler, body, *, status=200):
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(behave, **kwargs):
    """Run a server until the block ends; its threads end with it."""
    server = Server(behave, **kwargs)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
