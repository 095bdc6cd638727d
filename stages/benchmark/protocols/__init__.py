"""The protocols by which edits are judged, by name."""

from __future__ import annotations
