"""Makes the inputs in corpus/: `python -m tests.hostile.make_corpus`. See README.md there."""

from __future__ import annotations

import io
import sqlite3
import tempfile
from fractions import Fraction
from pathlib import Path

import msgspec
import torch

from ipc.messages import encode
from ipc.records import TensorHandle
from runtime.journal import Journal
from stages.eden.architecture import Architecture
from tests.hostile.checkpoints import SMALL, Runs, zipped
from tests.hostile.corpus_files import CORPUS
from tests.hostile.journals import FINGERPRINT, VIEWS
from tests.hostile.local_job import ready_message
from tests.stages.video.clips import write_clip

PLAIN = "pipeline: p\nstages: {read: {use: 'a:B'}, write: {use: 'a:C'}}\n"
MERGED = "\n".join(f"  a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40))
PAIRS = "\n".join(f"  a{n}: &a{n} !!pairs [x: *a{n - 1}, x: *a{n - 1}]" for n in range(1, 40))
CONFIGS = {
    "boolean_of_nothing.yaml": PLAIN + "video: {a: !!bool x}\n",
    "date_of_nothing.yaml": PLAIN + "video: {a: !!timestamp x}\n",
    "hexadecimal_without_end.yaml": PLAIN + "video: {a: 0x" + "f" * 6000 + "}\n",
    "key_of_two_lines.yaml": PLAIN + '"a\\nb": 1\n',
    "long_name_of_weights.yaml": PLAIN + f"model: {{weights: {'z' * 300}}}\n",
    "merged_without_end.yaml": PLAIN + "video:\n  a0: &a0 {k: v}\n" + MERGED + "\n",
    "number_of_nothing.yaml": PLAIN + "video: {a: !!int ''}\n",
    "number_to_base_60.yaml": PLAIN + "video: {a: 1" + ":59" * 2000 + "}\n",
    "pairs_without_end.yaml": PLAIN + "video:\n  a0: &a0 [x: 1]\n" + PAIRS + "\n",
    "runs_code.yaml": PLAIN + "video: {a: !!python/object/apply:os.system [touch canary]}\n",
    "stage_with_line_end.yaml": PLAIN.replace("write", '"b\\n"'),
    "surrogate.yaml": PLAIN + 'model: {a: "\\ud800"}\n',
}


def main() -> None:
    """Write all of them."""
    for name, text in CONFIGS.items():
        _keep("configs", name, text.encode())
    for name, part in _messages().items():
        _keep("messages", name, part)
    with tempfile.TemporaryDirectory() as folder:
        _journals(Path(folder))
        _videos(Path(folder))
    _checkpoints()


def _keep(surface: str, name: str, content: bytes) -> None:
    path = CORPUS / surface / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _messages() -> dict[str, bytes]:
    tree = msgspec.msgpack.decode(encode(ready_message()))
    beyond = TensorHandle(pool="in", slot=3, offset=0, shape=(4,), dtype="float32")
    wide = TensorHandle(pool="in", slot=2, offset=0, shape=(2**30,), dtype="float32")
    return {
        "field_of_two_lines": msgspec.msgpack.encode(tree | {"a\nb" * 1000: 1}),
        "handle_beyond_its_pool": encode(ready_message(handles={"x": beyond})),
        "handle_beyond_its_slot": encode(ready_message(handles={"x": wide})),
        "item_before_the_first": msgspec.msgpack.encode(tree | {"item": -1}),
        "item_behind_the_last": encode(ready_message(item=8)),
        "no_utf8": encode(ready_message(stage="\u00e9")).replace("\u00e9".encode(), b"\xff\xfe"),
        "stage_of_another_worker": encode(ready_message(stage="write")),
        "whole": encode(ready_message()),
    }


def _journals(folder: Path) -> None:
    path = folder / "journal.sqlite"
    Journal.create(path, FINGERPRINT).close()
    _keep("journals", "whole", path.read_bytes())
    for name, statements in {
        "a_trigger": ["CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END"],
        "rows_that_never_end": ["DROP TABLE rows", VIEWS[0]],
    }.items():
        path.write_bytes((CORPUS / "journals/whole").read_bytes())
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()
        _keep("journals", name, path.read_bytes())


def _checkpoints() -> None:
    one = torch.zeros(1)
    big = Architecture(hidden=2**14, num_heads=1, dit_depth=1, decoder_depth=1, mlp_hidden=2**14)
    claims = {name: one.expand(shape) for name, shape in big.shapes().items()}
    nowhere = {name: one.to("meta").expand(shape) for name, shape in SMALL.shapes().items()}
    states = {
        "claims_gigabytes.pt": claims,
        "lies_nowhere.pt": nowhere,
        "runs_code.pt": {"x": Runs("canary")},
    }
    for name, state in states.items():
        file = io.BytesIO()
        torch.save({"eden": state}, file)
        _keep("checkpoints", name, file.getvalue())
    _keep("checkpoints", "unpacks_to_more.pt", zipped({"a/data.pkl": bytes(2**20)}, is_packed=True))


def _videos(folder: Path) -> None:
    whole = {"g": "4", "preset": "ultrafast"}
    kinds = {
        "whole.mkv": {"options": whole},
        "whole.mp4": {"options": whole},
        "whole.avi": {"codec": "mpeg4", "time_base": Fraction(1, 25)},
    }
    for name, options in kinds.items():
        write_clip(folder / name, 5, size=(48, 32), **options)
        _keep("videos", name, (folder / name).read_bytes())
    _keep("videos", "names_another.mkv", b"ffconcat version 1.0\nfile whole.mkv\n")


if __name__ == "__main__":
    main()
