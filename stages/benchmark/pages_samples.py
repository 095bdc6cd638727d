"""The samples of a page: before and after, score, and what the judge said; it is all escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from stages.base import UserError
from stages.benchmark.pages_text import Markup, number, said, section, table
from stages.benchmark.pictures import read_pixels
from stages.benchmark.previews import preview_of

MAX_PICTURES = 1000  # samples of a page that are shown with pictures
_EMBEDDED = re.compile(r"data:image/(?:webp|jpeg|png);base64,[A-Za-z0-9+/=]+", re.ASCII)

Sample = Mapping[str, Any]  # of results.json
Previews = Mapping[str, Mapping[str, str]]


def read_previews(path: Path) -> Previews:
    """Return the small pictures of each sample; none if there is no such file.

    Raises:
        UserError: it is there, and not what it should be.
    """
    found: dict[str, Mapping[str, str]] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                each = json.loads(line)
                found[str(each["id"])] = {
                    kind: str(each.get(kind, "")) for kind in ("source", "edited")
                }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is damaged: {error}") from error
    return found


def unscored_part(results: Mapping[str, Any]) -> Markup:
    """Return the samples without a score, with the reasons."""
    rows = [
        (each["id"], each["category"], _badge(each["state"]), each["reason"])
        for each in results["unscored"]
    ]
    lost = "".join(f"<li>{said(reason)}</li>" for reason in results["lost"])
    content = [table("Samples without a score", ("sample", "category", "state", "reason"), rows)]
    if not rows:
        content = [Markup("<p>There is none: every sample that was read has a score.</p>")]
    if lost:
        content.append(Markup(f"<p>Groups that were lost as a whole:</p><ul>{lost}</ul>"))
    note = "They are null everywhere, and in no figure of this page."
    return section("unscored", "Samples without a score", *content, note=note if rows else "")


def samples_part(results: Mapping[str, Any], previews: Previews, images: Path) -> Markup:
    """Return a card for each sample, the lowest scores first."""
    headline = results["metadata"]["headline"]
    order = sorted(results["samples"], key=lambda each: _key(each, headline))
    cards = [
        _card(each, headline, _pictures(each, previews, images) if at < MAX_PICTURES else {})
        for at, each in enumerate(order)
    ]
    note = "Lowest scores first, those without one at the end."
    if len(order) > MAX_PICTURES:
        note += f" The first {MAX_PICTURES} have pictures."
    body = f'{_controls(results)}<div class="cards" id="cards">{"".join(cards)}</div>'
    return section("samples", "Samples", body, note=note)


def _key(sample: Sample, headline: str) -> tuple[bool, float, str]:
    scores = sample["scores"]
    return scores is None, scores[headline] if scores else 0.0, sample["id"]


def _controls(results: Mapping[str, Any]) -> str:
    """Return what filters and sorts; it shows only where scripts run."""
    groups = sorted({each["group"] for each in results["samples"]})
    states = sorted({each["state"] for each in results["samples"]})

    def choice(name: str, label: str, values: Sequence[tuple[str, str]]) -> str:
        options = "".join(f'<option value="{said(v)}">{said(text)}</option>' for v, text in values)
        return f'<label>{label} <select id="{name}">{options}</select></label>'

    return (
        '<form class="controls" hidden aria-label="Which samples to show">'
        + choice("by-group", "Category", [("", "all"), *((name, name) for name in groups)])
        + choice("by-state", "State", [("", "all"), *((name, name) for name in states)])
        + choice("by-score", "Order", [("up", "lowest first"), ("down", "highest first")])
        + '<label>Text <input type="search" id="by-text" placeholder="id or words"></label>'
        '<output id="shown" aria-live="polite"></output></form>'
    )


def _pictures(sample: Sample, previews: Previews, images: Path) -> Mapping[str, str]:
    """Return the pictures to embed, by kind; those that were kept, else one made of the edit."""
    kept = previews.get(sample["id"], {})
    found = {kind: data for kind, data in kept.items() if _EMBEDDED.fullmatch(data)}
    if "edited" not in found and sample["image"]:
        path = (images / sample["image"]).resolve()
        if path.is_relative_to(images.resolve()) and path.is_file():
            try:
                found["edited"] = preview_of(Image.fromarray(read_pixels(path)))
            except UserError:
                return found  # it says so itself, where a picture would be
    return found


def _card(sample: Sample, headline: str, pictures: Mapping[str, str]) -> str:
    scores = sample["scores"]
    shown = number(scores[headline]) if scores else "no score"
    sort = f"{scores[headline]:.6f}" if scores else ""
    return (
        f'<article class="card" data-group="{said(sample["group"])}" '
        f'data-state="{said(sample["state"])}" data-score="{sort}">'
        f'<div class="pair">{"".join(_figures(sample, pictures))}</div>'
        f"<header><h3>{said(sample['id'])}</h3>"
        f'<span class="score {"" if scores else "absent"}">{shown}</span></header>'
        f'<p class="tags">{said(sample["group"])} {_badge(sample["state"])}</p>'
        f'<p class="instruction" dir="auto">{said(sample["instruction"])}</p>'
        f"{_parts(scores)}{_reason(sample)}{''.join(_words(sample))}</article>\n"
    )


def _figures(sample: Sample, pictures: Mapping[str, str]) -> Iterator[str]:
    for kind, caption in (("source", "before"), ("edited", "after")):
        size = sample[f"{kind}_size"]
        told = f"{caption}, {size[1]} x {size[0]}" if all(size) else caption
        if kind in pictures:
            alt = f"{caption}: {sample['id']}"
            picture = f'<img loading="lazy" alt="{said(alt)}" src="{pictures[kind]}">'
        else:
            picture = '<div class="missing">no picture</div>'
        yield f"<figure>{picture}<figcaption>{told}</figcaption></figure>"


def _parts(scores: Mapping[str, float] | None) -> str:
    if not scores or len(scores) < 2:
        return ""
    told = "".join(f"<div><dt>{said(k)}</dt><dd>{number(v)}</dd></div>" for k, v in scores.items())
    return f'<dl class="parts">{told}</dl>'


def _reason(sample: Sample) -> str:
    return f'<p class="reason">{said(sample["reason"])}</p>' if sample["reason"] else ""


def _words(sample: Sample) -> Iterator[str]:
    """Yield what the judge said, its first answers and its second ones."""
    retries = [*sample["retries"], *([""] * len(sample["answers"]))]
    texts = []
    for index, answer in enumerate(sample["answers"]):
        title = f"answer {index + 1}" if len(sample["answers"]) > 1 else "the judge"
        texts.append((title, answer))
        if retries[index]:
            texts.append((f"{title}, asked again", retries[index]))
    if not texts:
        return
    yield "<details><summary>the judge's words</summary>"
    for title, text in texts:
        yield f'<h4>{said(title)}</h4><blockquote dir="auto">{said(text)}</blockquote>'
    yield "</details>"


def _badge(state: str) -> Markup:
    return Markup(f'<span class="badge {said(state)}">{said(state)}</span>')
