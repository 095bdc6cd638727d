"""Judges: whoever is asked how good an edited image is, by a benchmark's protocol.

`Score` is a Qwen3-VL that runs here, `ScoreByUrl` any server that speaks OpenAI's chat format.
README.md beside this file has both, and how to bring your own.
"""

from stages.judging.by_url import ScoreByUrl
from stages.judging.score import Score

__all__ = ["Score", "ScoreByUrl"]
