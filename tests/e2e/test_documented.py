"""Every command in README.md and in the help does what stands there, typed as it stands there.

In a folder as a user's might be: a video, a configuration, a run, and a `demo.yaml` that is the
shipped one with the smallest model and a short clip, so that this takes seconds; and so is
`edit_score_tiny.yaml`, without models: test_edit_score.py runs the shipped one.
"""

import os
import re
import shutil
import subprocess
import sys

import click
import pytest
import yaml

from runtime.cli import runpipe
from runtime.config import PROJECT
from runtime.host import probe_host
from tests.e2e.edited import write_config

README = (PROJECT / "README.md").read_text()
ELSEWHERE = {  # commands of minutes, with the tests that run them
    "bin/test": "this is what runs now",
    "tools/bench_edit_score.py": "tests/tools/test_bench_edit_score.py",
    "tools/bench_hop.py": "tests/tools/test_bench_hop.py",
    "tools/bench_eden.py": "tests/tools/test_bench_eden.py",
    "tools/bench_reference.py": "tests/tools/test_bench_gpu.py",
    "tools/bench_sharing.py": "tests/tools/test_bench_sharing.py",
    "tools/bench_trace.py": "tests/tools/test_bench_trace.py",
    "tools/bench_runtime_cost.py": "tests/tools/test_bench_runtime_cost.py",
    "tools/kill_matrix.py": "tests/tools/test_kill_matrix.py",
    "tools/soak.py": "tests/tools/test_soak.py",
    "tools/train_eden.py": "tests/tools/test_train_eden.py",
    "tools/eval_interpolation.py": "tests/tools/test_eval_interpolation.py",
    "tools/make_clip.py": "tests/tools/test_make_clip.py",
    "tools/make_tiny_checkpoints.py": "tests/tools/test_make_tiny_checkpoints.py",
    "tools/make_samples.py": "tests/tools/test_make_samples.py",
    "tools/make_picture.py": "tests/tools/test_make_picture.py",
    "tools/profile.sh": "tests/tools/test_profile.py",
}
RUN = "20250301-100000-interpolate"
COMMANDS = [runpipe, *(runpipe.get_command(None, name) for name in runpipe.list_commands(None))]
NEEDS_GPU = re.compile(r"(single|dual)_gpu|edit_score_single")


def readme_commands():
    """Return what stands behind "$ " in the README, with its continuation lines."""
    joined = README.replace("\\\n", " ")
    return re.findall(r"^ {4}\$ (.+)$", joined, re.MULTILINE)


def help_commands():
    """Return the examples of every command's help."""
    lines = [line.strip() for command in COMMANDS for line in (command.help or "").splitlines()]
    return [line.partition("  #")[0] for line in lines if re.match(r"(runpipe |source <)", line)]


@pytest.fixture(scope="module")
def home(tmp_path_factory, clip):
    """Return a folder in which the commands make sense, with one finished run in it."""
    home = tmp_path_factory.mktemp("home")
    for name in ("bin", "tools", "configs"):
        (home / name).symlink_to(PROJECT / name)
    text = (PROJECT / "configs/demo.yaml").read_text()
    text = re.sub(r"(?m)^input: .*$", "input: in.mp4", text)
    text = re.sub(r"(?m)^  weights: .*$", '  weights: "random:0:tiny"', text)
    for name in ("demo.yaml", "my.yaml", "mine.yaml"):
        (home / name).write_text(text)
    for name in ("in.mp4", "in.mkv"):
        shutil.copy(clip, home / name)
    tiny = yaml.safe_load(write_config(home / "edit_score_tiny.yaml").read_text())
    tiny["input"] = str(PROJECT / "configs/edit_score/samples.jsonl")
    tiny["output"] = "edit_score_tiny"
    (home / "edit_score_tiny.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    done = type_line(
        home, f"bin/runpipe --config demo.yaml --output first.mp4 --run-dir runs/{RUN}"
    )
    assert done.returncode == 0, done.stderr
    return home


def type_line(home, line):
    """Type a line into bash, there, with `runpipe` on the PATH."""
    environ = {
        **os.environ,
        "PATH": f"{PROJECT / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "HOME": str(home),
    }
    return subprocess.run(
        ["bash", "-c", line.replace("runs/DIR", f"runs/{RUN}")],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_there_are_commands_to_try():
    assert len(readme_commands()) >= 10
    assert len(help_commands()) >= 12


@pytest.mark.parametrize("line", dict.fromkeys([*readme_commands(), *help_commands()]))
def test_a_documented_command_works_as_it_stands_there(home, line):
    tool = line.removeprefix(".venv/bin/python ").split()[0]
    if tool in ELSEWHERE:
        assert (PROJECT / tool).exists()
        assert tool == "bin/test" or (PROJECT / ELSEWHERE[tool]).exists()
        return
    (home / "out.mp4").unlink(missing_ok=True)
    (home / ".config/fish/completions").mkdir(parents=True, exist_ok=True)
    if "--overwrite" not in line:
        (home / "demo_interpolated.mp4").unlink(missing_ok=True)
    if "zsh" in line and not shutil.which("zsh"):
        line = line.replace("source <(", "").replace(")", "")
    done = type_line(home, line)
    if NEEDS_GPU.search(line) and not probe_host().gpus:
        assert done.returncode == 2
        assert "this host has none; take a CPU configuration" in done.stderr
    elif NEEDS_GPU.search(line):
        wanted = r"checkpoints/(eden\.pt: no such file|qwen-image-edit: no such folder); fetch"
        assert re.search(wanted, done.stderr)
    else:
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def test_the_python_of_the_readme_works_as_it_stands_there(home):
    (block,) = re.findall(r"^```python\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(home / "in.mp4", home / name)
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"16 [0-9.]+\n", done.stdout)
    assert (home / "b2.mp4").exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_command_has_an_example(command):
    assert re.search(r"^\s*(runpipe |source <)", command.help, re.MULTILINE)
    assert isinstance(command, click.Command)


def test_every_option_says_what_it_does_without_it():
    for command in COMMANDS:
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("help", "version"):
                text = option.help or ""
                assert "Default" in text or option.required or "needed" in text, option.name


def test_the_readme_names_every_configuration_and_every_tool():
    for path in sorted((PROJECT / "configs").glob("*.yaml")):
        assert f"`{path.name}`" in README, path.name
    for path in sorted((PROJECT / "tools").iterdir()):
        if path.is_file() and re.search(r"^if __name__ == |^#!", path.read_text(), re.MULTILINE):
            assert f"tools/{path.name}" in README, path.name
