"""What ipc/ takes from the real package cuda-bindings is there; this needs no driver."""

import importlib
import re
import warnings

import pytest

from ipc.cuda_driver import HANDLE_BYTES, bytes_of_handle, handle_of_bytes
from ipc.errors import LOST
from tests.ipc.fake_driver import FakeDriver
from tests.ipc.fake_gpu import CUresult


@pytest.fixture(scope="module")
def driver():
    return importlib.import_module("cuda.bindings.driver")


@pytest.fixture(scope="module")
def source(request):
    folder = request.config.rootpath / "ipc"
    return "".join((folder / name).read_text() for name in ("cuda.py", "cuda_driver.py"))


def test_every_function_that_is_called_is_there_and_in_the_fake(driver, source):
    called = set(re.findall(r"\bcu[A-Z]\w+", source))
    assert len(called) >= 25
    assert {name for name in called if not callable(getattr(driver, name, None))} == set()
    assert {name for name in called if not callable(getattr(FakeDriver, name, None))} == set()


def test_every_flag_has_the_fake_s_value(driver, source):
    flags = set(re.findall(r"\b(CU\w+)\.(CU_\w+)|driver\.(CU_\w+)", source))
    flags |= {("CUevent_flags", name, "") for name in re.findall(r"flags\.(CU_EVENT_\w+)", source)}
    assert len(flags) >= 5
    for kind, member, constant in flags:
        real, fake = ((getattr(d, kind) if kind else d) for d in (driver, FakeDriver))
        name = member or constant
        assert int(getattr(real, name)) == getattr(fake, name), name


def test_every_status_has_the_fake_s_number(driver):
    real = driver.CUresult.__members__
    assert {name: int(real[name]) for name in CUresult.__members__} == dict(CUresult.__members__)
    assert LOST - set(real) == set()


def test_the_bytes_of_a_handle_make_the_same_handle(driver):
    data = bytes(range(HANDLE_BYTES))
    assert driver.CU_IPC_HANDLE_SIZE == HANDLE_BYTES
    assert bytes_of_handle(handle_of_bytes(driver, data)) == data


def test_handles_turn_into_integers_without_a_warning(driver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kinds = (driver.CUdeviceptr, driver.CUstream, driver.CUevent)
        assert [int(kind(5)) for kind in kinds] == [5, 5, 5]
    assert len(driver.CUuuid().bytes) == 16
