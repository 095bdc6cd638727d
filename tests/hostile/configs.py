"""Hostile configurations: damaged files, trees that no person would write, bombs."""

from __future__ import annotations

from pathlib import Path
from random import Random

from runtime.config import dump_config, load_config, parse_config
from runtime.errors import ConfigError
from runtime.hosted import pack
from runtime.yaml_text import parse_yaml
from tests.hostile.corpus_files import corpus
from tests.hostile.mutate import damaged

MAX_MESSAGE_CHARS = 4000

PIECES = [
    *"[]{}:,-?&*!|>'\"%@`#\n\t\0 =~",
    *("\n  ", ": ", "- ", "? ", "---\n", "...\n", "<<: ", "&a ", "*a", "!!", "! ", "\r", "\x85"),
    *("\ufeff", "\u2028", "\ud7ff", '"\\ud800"', '"\\0"', '"\\UFFFFFFFF"', '"\\n"', "%YAML 9.9\n"),
    *("!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!null", "!!str 7", "!!merge x"),
    *("!!set {a}", "!!omap [a: 1]", "!!pairs [a: 1, a: 2]", "!!binary x", "!!python/tuple [1]"),
    *("!!python/object/apply:os.system ['touch canary']", "!!python/name:os.system"),
    *("!!python/object/new:os.system ['x']", "!!python/module:os", "!<tag:yaml.org,2002:int> ''"),
    *("1:59:59:59", "0x" + "f" * 300, "9" * 5000, "1e999", ".nan", "-.inf", "0b" + "1" * 500),
    *(
        "2025-02-30",
        "2001-12-14t21:59:43.10-99:00",
        "null",
        "true",
        "'read\n'",
        "1_000",
        "0o7",
        "9" * 30,
    ),
    *("x" * 300, "/" + "y" * 5000, "../../../etc/passwd", "random:0", "weights: ", "a\\0b"),
]
KEYS = ["pipeline", "input", "output", "model", "video", "stages", "groups", "run", "use", "gpus"]
KEYS += ["with", "replicas", "assign", "seed", "window", "hang_s", "read", "write", "weights", "x"]
MORE_KEYS = [*KEYS, '"a\\nb"', '"\\ud800"', "? [1]", "7", "null", "''", "k" * 400, "<<", "\u00e9"]


class Surface:
    """Loads what is written to a file, and overrides it."""

    max_bytes = 2**29

    def __init__(self, folder: Path) -> None:
        self._file = folder / "hostile.yaml"
        real = [path.read_bytes() for path in Path("configs").glob("*.yaml")]
        self._texts = [*real, *corpus("configs").values()]

    def make(self, rng: Random) -> tuple[bytes, list[str]]:
        overrides = [_override(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        kind = rng.randrange(16)
        if kind < 4:
            return damaged(rng, rng.choice(self._texts), self._texts), overrides
        if kind < 10:
            return _with_pieces(rng, rng.choice(self._texts).decode(errors="replace")), overrides
        if kind < 15:
            return _document(rng).encode(errors="surrogatepass"), overrides
        return _bomb(rng).encode(), overrides

    def judge(self, case: tuple[bytes, list[str]]) -> None:
        text, overrides = case
        self._file.write_bytes(text)
        try:
            config = load_config(self._file, overrides)
        except ConfigError as error:
            check_line(str(error), ("hostile.yaml", "--set"))
        else:
            for keywords in (config.defaults, *(dict(s.options) for s in config.stages.values())):
                pack(keywords)  # as they travel to the workers
            text_again = dump_config(config)
            text_again.encode()
            data = parse_yaml(text_again)
            assert isinstance(data, dict)
            assert dump_config(parse_config(data)) == text_again


def check_line(message: str, names: tuple[str, ...]) -> None:
    """Check that a message is one line, that it names the thing, and that it can be printed."""
    assert message.isprintable() or message.replace("\t", " ").isprintable(), repr(message[:300])
    assert any(name in message for name in names), message[:300]
    assert len(message) <= MAX_MESSAGE_CHARS, f"{len(message)} characters: {message[:300]}"


def _with_pieces(rng: Random, text: str) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        if rng.random() < 0.5:
            words = [i for i, sign in enumerate(text) if sign in ": \n,["]
            at = rng.choice(words or [0]) + 1
        text = text[:at] + rng.choice(PIECES) + text[at + rng.choice((0, 0, 1, 5)) :]
    return text.encode(errors="surrogatepass")


def _document(rng: Random) -> str:
    """Return a configuration whose keys are right more often than its values."""
    lines = ["pipeline: p", "stages:", "  read: {use: 'a:B'}", "  write: {use: 'a:C'}"]
    for _ in range(rng.randint(1, 4)):
        lines.insert(rng.randint(0, len(lines)), f"{rng.choice(MORE_KEYS)}: {_value(rng, 0)}")
        if rng.random() < 0.3:
            where = rng.randint(3, len(lines))
            lines.insert(where, f"  {rng.choice(MORE_KEYS)}: {_value(rng, 1)}")
    return "\n".join(lines)


def _value(rng: Random, depth: int) -> str:
    kind = rng.randrange(8) if depth < 4 else 0
    anchor = rng.choice(("", "", "", "&a ", "&b "))
    if kind < 4:
        return anchor + rng.choice((*PIECES, "*a", "*b", "1", "-1", "true", "text", "1.5"))
    values = [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind < 6:
        return f"{anchor}[{', '.join(values)}]"
    return anchor + "{" + ", ".join(f"{rng.choice(MORE_KEYS)}: {value}" for value in values) + "}"


def _bomb(rng: Random) -> str:
    """Return a text that is small and asks for much."""
    size = rng.choice((10, 10, 300, 300, 300, 2000, 2000, 20_000))
    depth = rng.choice((8, 20, 40))
    start = "pipeline: p\nstages: {read: {use: 'a:B'}, write: {use: 'a:C'}}\nvideo:\n"
    pile = rng.choice(
        (
            ("[1, 1]", "[*a{0}, *a{0}]"),
            ("{{k: v}}", "{{<<: [*a{0}, *a{0}, *a{0}]}}"),
            ("[x: 1]", "!!pairs [x: *a{0}, x: *a{0}]"),
            ("{{k: v}}", "!!omap [x: *a{0}, y: *a{0}]"),
            ("{{k: v}}", "{{x: *a{0}, y: *a{0}}}"),
        )
    )
    piled = f"  a0: &a0 {pile[0].format(0)}\n" + "".join(
        f"  a{n}: &a{n} {pile[1].format(n - 1)}\n" for n in range(1, depth)
    )
    return rng.choice(
        (
            start + piled,
            "".join(line[2:] + "\n" for line in piled.splitlines()),
            f"- &a {pile[0].format(0)}\n- {pile[1].format('').replace('a,', 'a ,')}\n",
            start + "  a: " + "[" * size + "]" * size,
            start + "  a: " + "{a: " * size,
            "- " * size,
            "? " * size,
            start + "  a: " + "1" + ":59" * size * 5,
            start + "  a: 1" + ":59" * size + ".5",
            start + "  a: 0x" + "f" * size * 10,
            start + "  a: [" + "1," * size + "]",
            start + "".join(f"  k{n}: 1\n" for n in range(size)),
            start + "  a: {" + "".join(f"{n * (2**61 - 1)}: 1, " for n in range(size)) + "}",
            start + "  " + "k" * size * 10 + ": 1\n" + "  " + "k" * size * 10 + ": 1\n",
            start + "  a: '" + "\n" * size * 10 + "'",
            start + "  a: &a {<<: *a}",
            start + "  a: &a [1]\n  b: {<<: [" + "*a, " * size + "]}",
            start + "  a: &a {k: v}\n  b: {<<: [" + "*a, " * size + "]}",
            f"{'x' * size}: 1\n{start}",
            start + f"run: {{{'y' * size * 10}: 1}}",
            "groups: [[" + "a, " * size + "b]]\n" + start,
            "stages:\n" + "".join(f"  s{n}: {{use: 'a:B'}}\n" for n in range(size // 20)),
        )
    )


def _override(rng: Random) -> str:
    keys = ".".join(rng.choice(KEYS) for _ in range(rng.randint(1, 3)))
    return rng.choice(
        (f"{keys}={_value(rng, 2)}", keys, f"{rng.choice(PIECES)}={rng.choice(PIECES)}")
    )
