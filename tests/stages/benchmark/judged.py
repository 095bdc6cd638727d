"""Groups of samples as a judge leaves them, made in memory."""

from dataclasses import replace

import numpy as np

from stages.base import Item, Job
from stages.benchmark.facts import GroupFacts, GroupMeta, Member, Replies
from stages.benchmark.scores import SaveScores

SIZE = (48, 64)
ROW_BYTES = SIZE[0] * SIZE[1] * 3
HOSTILE = (
    "<script>document.title='pwned'</script> \"'&|`# \u202e\u2028 ]]> </style><img src=x onerror=a>"
)


def member(sample_id, group="physical", *, state="edited", reason="", row=0, **others):
    edited = SIZE if state == "edited" else (0, 0)
    fields = {"language": "en", "instruction": f"change {sample_id}", "source": SIZE} | others
    return Member(
        id=sample_id,
        group=group,
        edited=edited,
        state=state,
        reason=reason,
        copy_of=row if state == "edited" else -1,
        **fields,
    )


def said(*texts, retries=(), reason=""):
    return Replies(texts=texts, retries=retries or ("",) * len(texts), reason=reason)


def group_of(*pairs):
    """Return a group of (member, replies), each of the good ones in its own row."""
    members = tuple(
        replace(each, copy_of=row if each.state == "edited" else -1)
        for row, (each, _) in enumerate(pairs)
    )
    return GroupMeta(members=members, replies=tuple(replies for _, replies in pairs))


def pixels_of(size=8):
    """Return sources and edits: every row another colour, so that pictures can be told apart."""
    sources = np.zeros((size, ROW_BYTES), np.uint8)
    edits = np.zeros((size, ROW_BYTES), np.uint8)
    for row in range(size):
        sources[row] = np.linspace(0, 255, ROW_BYTES).astype(np.uint8)
        edits[row].reshape(*SIZE, 3)[:] = (40, 20 + 25 * row, 230 - 25 * row)
    return {"sources": sources, "edits": edits}


def facts_of(folder, num_samples=8, *, overwrite=False, work="work"):
    (folder / work).mkdir(parents=True, exist_ok=True)
    job = Job(
        input="/set.json",
        output=str(folder / "out" / "results.json"),
        work_dir=str(folder / work),
        overwrite=overwrite,
        seed=7,
    )
    return GroupFacts(
        job=job,
        num_samples=num_samples,
        group_size=8,
        max_source_bytes=ROW_BYTES,
        max_edited_bytes=ROW_BYTES,
        max_instruction_bytes=400,
    )


def put(sink, index, meta, *, failed=""):
    item = Item(index=index, attempt=0, meta=meta, failed=failed)
    return sink.write(item, pixels_of(), meta)


def save(folder, groups, **options):
    """Write groups through the sink; return the path of results.json."""
    members = [each for meta in groups for each in meta.members]
    facts = facts_of(folder, sum(each.state != "unasked" for each in members))
    sink = SaveScores(**{"model_name": "edit", "judge": "tiny judge"} | options)
    sink.open(facts)
    for index, meta in enumerate(groups):
        put(sink, index, meta)
    sink.finish(range(len(groups)))
    sink.close()
    return folder / "out" / "results.json"


def mixed_groups():
    """Return two groups with all that can become of a sample."""
    return [
        group_of(
            (member("p1"), said("Reason: wood bends.\nScore: 8.5")),
            (member("p2"), said("I like it", retries=("Score: 6",))),
            (member("p3", instruction=HOSTILE), said(HOSTILE, retries=("Score: 3 or 4",))),
            (member("p4", state="failed", reason=f"ValueError: {HOSTILE}"), said()),
            (member("c1", "causal"), said("Score: 2")),
            (member("c2", "causal", state="unasked"), said()),
            (member("c3", "causal"), said(reason="the judge's endpoint timed out after 30 s")),
            (member("c4", "\u56e0\u679c", language="zh"), said("\u8bc4\u5206\uff1a4")),
        ),
        group_of(
            (member("e1", "environmental"), said("9/10")),
            (member("e2", "environmental"), said("Score: 7.25")),
            (member("x1", "no such group"), said("Score: 7")),
        ),
    ]
