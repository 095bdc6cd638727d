"""How encoders are told what display a video was mastered on, and how bright it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stages.window import Presentation

_Told = tuple[str, list[str]]  # the name of FFmpeg's option, and what is added to its value


def _x264(shown: Presentation) -> _Told:
    display = [f"mastering-display={_whole(shown.mastering_display)}"]
    light = [f"cll={_pair(shown.content_light)}"]
    return "x264-params", _stated(shown, display, light)


def _x265(shown: Presentation) -> _Told:
    display = [f"master-display={_whole(shown.mastering_display)}"]
    light = [f"max-cll={_pair(shown.content_light)}"]
    return "x265-params", _stated(shown, display, light)


def _svt(shown: Presentation) -> _Told:
    display = [f"mastering-display={_decimal(shown.mastering_display)}"]
    light = [f"content-light={_pair(shown.content_light)}"]
    return "svtav1-params", _stated(shown, display, light)


LIGHT_OPTIONS: dict[str, Callable[[Presentation], _Told]] = {
    "libx264": _x264,
    "libx265": _x265,
    "libsvtav1": _svt,
}


def _stated(shown: Presentation, display: list[str], light: list[str]) -> list[str]:
    return (display if shown.mastering_display else []) + (light if shown.content_light else [])


def _whole(numbers: Sequence[int]) -> str:
    return _display([str(number) for number in numbers])


def _decimal(numbers: Sequence[int]) -> str:
    points = [f"{number / 50000:.5f}" for number in numbers[:8]]
    return _display(points + [f"{number / 10000:.4f}" for number in numbers[8:]])


def _display(numbers: Sequence[str]) -> str:
    """Write primaries, white point and luminance in the order that all of these encoders take."""
    if not numbers:
        return ""
    rx, ry, gx, gy, bx, by, wx, wy, highest, lowest = numbers
    return f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({highest},{lowest})"


def _pair(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
