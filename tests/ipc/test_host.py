import os
import subprocess
import sys

import msgspec
import pytest

from ipc.errors import Closed, ProtocolError
from ipc.host import HostPool, MappedPool, align


@pytest.fixture
def pool():
    made = HostPool("add/0.0@host#1", owner="add/0", num_slots=4, slot_bytes=4096)
    yield made
    made.close()


def test_what_the_owner_writes_a_reader_sees_without_a_copy(pool):
    with (
        MappedPool(pool.address, writable=True) as owner,
        MappedPool(pool.address, writable=False) as reader,
    ):
        written, seen = owner.array(), reader.array()
        written[5000] = 42
        assert seen[5000] == 42
        del written, seen


def test_a_reader_cannot_write(pool):
    with MappedPool(pool.address, writable=False) as reader:
        seen = reader.array()
        with pytest.raises(ValueError, match="read-only"):
            seen[0] = 1
        del seen


def test_an_interruption_while_a_pool_is_made_leaves_no_descriptor(monkeypatch):
    def interrupted(fd, offset, length):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", interrupted)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        HostPool("add/0.0@host#1", owner="add/0", num_slots=4, slot_bytes=4096)
    assert set(os.listdir("/proc/self/fd")) == before


READER = """
import sys, msgspec
from ipc.host import MappedPool
from ipc.records import PoolAddress
address = msgspec.json.decode(sys.argv[1], type=PoolAddress)
with MappedPool(address, writable=False) as pool:
    seen = pool.array()
    print(int(seen.sum()))
    del seen
"""


def test_another_process_opens_a_pool_by_its_address(pool, project):
    with MappedPool(pool.address, writable=True) as owner:
        written = owner.array()
        written[:] = 1
        done = subprocess.run(
            [sys.executable, "-c", READER, msgspec.json.encode(pool.address).decode()],
            env={**os.environ, "PYTHONPATH": str(project)},
            capture_output=True,
            text=True,
            check=True,
        )
        del written
    assert done.stdout.strip() == str(4 * 4096)


def test_all_pages_are_there_before_anyone_writes(pool):
    blocks = os.stat(f"/proc/self/fd/{pool.address.fd}").st_blocks
    assert blocks * 512 >= 4 * 4096


def test_what_is_no_pool_is_refused(pool, tmp_path):
    other = msgspec.structs.replace(pool.address, slot_bytes=10)
    with pytest.raises(ProtocolError, match=r"pool add/0.0@host#1: .* has 16384 bytes, not 40"):
        MappedPool(other, writable=False)
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes(4 * 4096))
        file.flush()
        wrong = msgspec.structs.replace(pool.address, fd=file.fileno())
        with pytest.raises(ProtocolError, match=r"pool add/0.0@host#1: .*/file', no pool"):
            MappedPool(wrong, writable=True)
    with pytest.raises(ProtocolError, match=r"pool add/0.0@host#1: cannot open"):
        MappedPool(wrong, writable=False)


def test_a_pipe_in_place_of_a_pool_holds_nobody_up(pool):
    read, write = os.pipe()
    wrong = msgspec.structs.replace(pool.address, fd=read)
    with pytest.raises(ProtocolError, match="no pool"):
        MappedPool(wrong, writable=False)
    os.close(read)
    os.close(write)


def test_a_pool_with_views_is_not_unmapped_under_them(pool):
    mapped = MappedPool(pool.address, writable=True)
    view = mapped.array()
    with pytest.raises(BufferError):
        mapped.close()
    view[0] = 1
    del view
    mapped.close()
    mapped.close()
    with pytest.raises(Closed):
        mapped.array()


def test_slots_start_where_vectors_like_it():
    assert [align(n) for n in (0, 1, 256, 257)] == [0, 256, 256, 512]
