"""The fake driver under the real one's name."""

import sys

from tests.ipc.fake_driver import FakeDriver

sys.modules[__name__] = FakeDriver()
