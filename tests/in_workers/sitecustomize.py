"""Run by every Python that starts with this folder on PYTHONPATH: gives a worker the fake torch."""

from tests.fake_torch import install

install()
