"""The inputs that are kept: small real ones, and those that once were too much."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"


def corpus(surface: str) -> dict[str, bytes]:
    """Return the kept inputs of a surface by file name, in order."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / surface).glob("*"))}
