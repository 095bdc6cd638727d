"""Hostile checkpoints: damaged ones, headers that lie, pickles that carry code."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save

from stages.base import UserError
from stages.eden import Decode, Denoise, Encode
from stages.eden.architecture import Architecture
from stages.eden.checkpoint import read_architecture, read_tensors
from tests.hostile.configs import check_line
from tests.hostile.corpus_files import corpus
from tests.hostile.mutate import damaged, extreme

SMALL = Architecture(
    hidden=8, num_heads=1, dit_depth=1, decoder_depth=1, mlp_hidden=8, patch=2, latent=4
)
PREFIXES = Encode.prefixes + Denoise.prefixes + Decode.prefixes
BAD_NAMES = ["proj_in.weight\n", "", "x" * 10_000, "dit_blocks.7.x", "\ud7ff", "a.b", "../x"]
SIDECARS = ["[" * 5000, "{}", "[]", '{"num_heads": 1e999}', '{"num_heads": ' + "9" * 400 + "}"]
SIDECARS += ['{"num_heads": ' + "9" * 5000 + "}", '{"num_heads": "1\\n"}', '{"vae_shift": NaN}']
SIDECARS += ['{"model_args": 3}', '{"num_heads": null}', '{"vae_scaler": 1e-999}', "\xff", "null"]
SIDECARS += [
    '{"num_heads": {"a": ' + '["x"]' * 1 + "}}",
    '{"num_heads": -1}',
    '{"num_heads": true}',
]
SIDECARS += ['{"cos_sim_std": "' + "y" * 5000 + '"}', '{"num_heads": "1_0"}']

Case = tuple[str, bytes, str | None]  # suffix of the file, its content, the JSON file beside it


class Runs:
    """What no unpickler may do: it makes the canary."""

    def __init__(self, canary: str) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (self._canary,)


class Surface:
    """Finds out what model a file has, and reads all its tensors."""

    max_bytes = 2**28

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._folder, self._canary = folder, folder / "canary"
        shapes = SMALL.shapes()
        generator = torch.Generator().manual_seed(0)
        self._state = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
        self._bytes = {
            ".safetensors": save(self._state, SMALL.metadata()),
            ".pt": _saved({"eden": self._state}),
        }
        self._packed = _packed(self._bytes[".pt"])
        self._others = [*self._bytes.values(), *corpus("checkpoints").values()]

    def make(self, rng: Random) -> Case:
        sidecar = rng.choice(SIDECARS) if rng.random() < 0.2 else None
        suffix = rng.choice((".pt", ".safetensors"))
        kind = rng.randrange(6)
        if kind < 2:
            content = damaged(rng, self._bytes[suffix], self._others)
        elif suffix == ".safetensors":
            content = self._lying_header(rng)
        elif kind < 4:
            content = self._pickle(rng)
        else:
            content = _saved(self._odd_state(rng))
        if suffix == ".pt" and rng.random() < 0.02:
            content = self._packed
        return suffix, content, sidecar

    def _lying_header(self, rng: Random) -> bytes:
        """Return a safetensors file whose header says something else than its bytes."""
        whole = self._bytes[".safetensors"]
        (length,) = struct.unpack("<Q", whole[:8])
        header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(list(header))
            what = rng.randrange(8)
            if name == "__metadata__" or what == 0 or not isinstance(header[name], dict):
                value = rng.choice(("1\n", "nan", "-1", "0", "1e300", "9" * 5000, "", 7, None))
                header["__metadata__"] = {rng.choice(("num_heads", "vae_shift")): value}
            elif what == 1:
                header[rng.choice(BAD_NAMES)] = header.pop(name)
            elif what == 2:
                header[name]["dtype"] = rng.choice(("F64", "I64", "F8_E4M3", "BF16", "", "X", None))
            elif what == 3:
                header[name]["shape"] = rng.choice(([], [-1], [2**62, 4], [0], [8] * 99, [10**30]))
            elif what == 4:
                header[name]["data_offsets"] = [extreme(rng), extreme(rng)]
            elif what == 5:
                header[name]["data_offsets"] = [0, 4]
            elif what == 6:
                body = rng.choice((b"", body[:-1], body + b"x", self._not_finite(body)))
            else:
                header[name] = rng.choice(([], {}, None, "x", {"dtype": "F32"}))
        text = json.dumps(header).encode()
        if rng.random() < 0.1:
            text = b'{"a":' * 3000 + text
        size = len(text) if rng.random() < 0.9 else extreme(rng) % 2**64
        return struct.pack("<Q", size) + text + body

    def _not_finite(self, body: bytes) -> bytes:
        at = len(body) // 8 * 4
        return body[:at] + struct.pack("<f", float("nan")) + body[at + 4 :]

    def _odd_state(self, rng: Random) -> object:
        """Return what is no state dict of EDEN, or one that claims more than it holds."""
        state: dict[object, object] = dict(self._state)
        name = rng.choice(list(state))
        small = torch.zeros(1)
        huge = small.expand(2**20, 2**12)
        odd: list[object] = [
            torch.full((8,), float("nan")),
            torch.full((8, 4), float("inf")),
            torch.zeros(8, 4, dtype=torch.int64),
            torch.zeros(8, 4, dtype=torch.complex64),
            torch.zeros(8, 4).to_sparse(),
            torch.zeros(8, 4, device="meta"),
            torch.nn.Parameter(torch.zeros(8, 4)),
            torch.zeros(4, 8).T,
            torch.zeros(8, 4, requires_grad=True),
            torch.quantize_per_tensor(torch.zeros(8, 4), 0.1, 0, torch.quint8),
            huge,
            "text",
            None,
            [1],
            7,
            {"a": state["proj_in.weight"]},
        ]
        state[rng.choice((name, "proj_in.weight", 7, ("a",), *BAD_NAMES))] = rng.choice(odd)
        if rng.random() < 0.2:  # one float that stands for a model of gigabytes
            big = Architecture(hidden=2**14, num_heads=1, mlp_hidden=2**14)
            state = {n: small.expand(s) for n, s in big.shapes().items()}
        if rng.random() < 0.1:
            state = {n: small.to("meta").expand(t.shape) for n, t in self._state.items()}
        return rng.choice(
            ({"eden": state}, {"eden": state}, {"eden": state}, state, [state], state)
        )

    def _pickle(self, rng: Random) -> bytes:
        """Return an archive whose pickle is somebody's own, or damaged."""
        whole = zipfile.ZipFile(io.BytesIO(self._bytes[".pt"]))
        records = {info.filename: whole.read(info) for info in whole.infolist()}
        (at,) = (name for name in records if name.endswith("/data.pkl"))
        kind = rng.randrange(5)
        if kind == 0:
            records[at] = pickle.dumps({"eden": {"x": Runs(str(self._canary))}}, 2)
        elif kind == 1:
            records[at] = rng.choice(BOMBS)
        else:
            records[at] = damaged(rng, records[at], list(records.values()))
        if rng.random() < 0.2:
            name = rng.choice(list(records))
            records[name] = rng.choice((b"", b"big", records[name] * 3, b"\xff" * 40))
        if rng.random() < 0.1:
            folder = at.removesuffix("data.pkl")
            records[f"{folder}constants.pkl"] = records[at]
        return zipped(records)

    def judge(self, case: Case) -> None:
        suffix, content, sidecar = case
        path = self._folder / f"hostile{suffix}"
        path.write_bytes(content)
        beside = path.with_suffix(".json")
        beside.unlink(missing_ok=True)
        if sidecar is not None:
            beside.write_bytes(sidecar.encode("latin-1"))
        try:
            architecture = read_architecture(str(path))
            tensors = read_tensors(str(path), PREFIXES)
        except UserError as error:
            check_line(str(error), ("hostile",))
        else:
            expected = architecture.shapes()
            assert {n: tuple(t.shape) for n, t in tensors.items()} == dict(expected)
            assert all(tensor.isfinite().all() for tensor in tensors.values())
        assert not self._canary.exists(), "code of the checkpoint ran"


def _saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def zipped(records: dict[str, bytes], *, is_packed: bool = False) -> bytes:
    """Return an archive of these records, as torch makes them, or packed."""
    file, method = io.BytesIO(), zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()


def _packed(content: bytes) -> bytes:
    """Return the archive with its records packed, so that a small file holds a large pickle."""
    source, file = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in source.namelist():
            with archive.open(name, "w", force_zip64=True) as record:
                record.write(source.read(name))
                for _ in range(8 if name.endswith("/data.pkl") else 0):
                    record.write(bytes(2**20))
    return file.getvalue()


BOMBS = [
    b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",  # 1 TiB of zeros
    b"\x80\x02(" + b"(" * 5000 + b"t" * 5000 + b".",
    b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b".",
    b"\x80\x02X\xff\xff\xff\x7fabc.",
    b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00x\x85R.",
    b"\x80\x02ccollections\nOrderedDict\n)R}(X\x01\x00\x00\x00ah\x00ub.",
    b"\x80\x02r\xff\xff\xff\xff.",
    b"\x80\x02}q\x00h\x00h\x00s.",
    b"\x80\x02X\x04\x00\x00\x00eden}X\x01\x00\x00\x00aNs\x86.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\xff.",
    b".",
    b"",
]
