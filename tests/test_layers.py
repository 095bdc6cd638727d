"""The rules of architecture and of size, as tests: who may import whom, and how long things get."""

import ast
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"ipc": set(), "stages": set(), "runtime": {"ipc", "stages"}}
OURS = {*MAY_IMPORT, "tools", "tests", "bin"}
LAYERED = sorted(path for layer in MAY_IMPORT for path in (ROOT / layer).rglob("*.py"))
START_UP = sorted(path for path in (ROOT / "bin").iterdir() if path.is_file())
WRITTEN = sorted(chain(LAYERED, START_UP, *((ROOT / d).rglob("*.py") for d in ("tests", "tools"))))

LIGHT = {"msgspec", "zmq", "numpy"}  # all that a worker's interpreter needs beside its stages
WITHOUT_TORCH = ["runtime.cli", "runtime.supervisor", "stages.video"]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50

NEVER = {
    "pickle on a wire (its exceptions may be caught)": (
        r"pickle\.(loads?|dumps?|Pickler|Unpickler)\b"
        r"|\bfrom \w*pickle import\b|_pyobj\(|allow_pickle=True"
    ),
    "yaml.load, which builds any object": r"\byaml\.(unsafe_|full_)?load\(",
    "torch.load without weights_only=True": (
        r"\btorch\.load\((?![^()]*(\([^()]*\)[^()]*)*weights_only=True)"
    ),
    "empty_cache, but first thing after an OutOfMemoryError, on the way to a smaller shape": (
        r"(?m)(?<!OutOfMemoryError:\n)^.*empty_cache"
    ),
}


def named(found):
    """Turn {path: what is wrong there} into what an assertion shows: names, and only the wrong."""
    return {str(path.relative_to(ROOT)): wrong for path, wrong in found.items() if wrong}


def imports_of(statements):
    """Return the full names that these statements import, `from a import b` as both a and a.b."""
    names = set()
    for node in statements:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(names):
    return {name.partition(".")[0] for name in names}


def run_at_import(tree):
    """Yield the statements that importing a module runs: not functions, not `if TYPE_CHECKING`."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from run_at_import(ast.Module(node.orelse, []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            blocks = ("body", "orelse", "finalbody", "handlers")
            for block in (getattr(node, name, []) for name in blocks):
                yield from run_at_import(ast.Module(block, []))


def parse(path):
    return ast.parse(path.read_text(), str(path))


def loaded_by(module):
    """Import a module in a fresh interpreter; return the installed packages that it loaded."""
    code = (
        f"import sys; before = set(sys.modules); import {module}; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before"
        " if 'site-packages' in (getattr(sys.modules[name], '__file__', None) or '')})"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def imported_by(path):
    """Return the packages that a file imports anywhere."""
    return packages(imports_of(ast.walk(parse(path))))


def imported_first(path):
    """Return the packages that importing a file imports."""
    return packages(imports_of(run_at_import(parse(path))))


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_downwards(layer):
    allowed = MAY_IMPORT[layer] | {layer}
    files = (ROOT / layer).rglob("*.py")
    assert named({path: imported_by(path) & OURS - allowed for path in files}) == {}


def test_what_a_worker_needs_is_light():
    allowed = LIGHT | OURS | sys.stdlib_module_names
    files = [*(ROOT / "ipc").rglob("*.py"), ROOT / "runtime" / "worker.py"]
    assert named({path: imported_first(path) - allowed for path in files}) == {}


def test_a_worker_starts_with_nothing_else_loaded():
    taken_by_pyzmq = {"typing_extensions"}  # where it is installed
    assert loaded_by("runtime.worker") - LIGHT - taken_by_pyzmq == set()


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_torch_stays_out_of_what_starts_and_of_video(module):
    place = ROOT.joinpath(*module.split("."))
    files = sorted(place.rglob("*.py")) or [place.with_suffix(".py")]
    assert named({path: imported_first(path) & {"torch"} for path in files}) == {}
    assert "torch" not in loaded_by(module)


def test_files_and_functions_stay_short():
    lengths = {path: path.read_text().count("\n") for path in WRITTEN}
    assert named({p: lines if lines > MAX_FILE_LINES else 0 for p, lines in lengths.items()}) == {}
    assert named({path: long_functions(path) for path in WRITTEN}) == {}


def long_functions(path):
    functions = {
        f"{node.name} at {node.lineno}": node.end_lineno - node.lineno + 1
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name: lines for name, lines in functions.items() if lines > MAX_FUNCTION_LINES}


def test_nothing_is_used_that_is_never_used():
    tests = ROOT / "tests"  # which may write a bad file, to see it refused
    texts = {path: path.read_text() for path in WRITTEN if not path.is_relative_to(tests)}
    found = {path: [why for why in NEVER if re.search(NEVER[why], texts[path])] for path in texts}
    assert named(found) == {}


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(part)",
        "from pickle import loads",
        "socket.send_pyobj(item)",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(open(path), weights_only=False)",
        "torch.cuda.empty_cache()",
    ],
)
def test_the_never_list_finds(line):
    assert [pattern for pattern in NEVER.values() if re.search(pattern, line)]


@pytest.mark.parametrize(
    "line",
    [
        "yaml.safe_load(text)",
        "torch.load(open(path), weights_only=True)",
        "except pickle.UnpicklingError as error:",
        "except torch.OutOfMemoryError:\n    torch.cuda.empty_cache()",
    ],
)
def test_the_never_list_lets_pass(line):
    assert not [pattern for pattern in NEVER.values() if re.search(pattern, line)]


def test_imports_inside_functions_and_conditions_are_told_apart():
    tree = ast.parse(
        "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nexcept E:\n    import d\n"
        "def f():\n    import e\nclass C:\n    import g\n    def m(self):\n        import h\n"
    )
    assert imports_of(run_at_import(tree)) == {"a", "c", "d", "g"}
    assert imports_of(ast.walk(tree)) == set("abcdegh")
