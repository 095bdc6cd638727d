"""The commands beside a run: what they print, what they load, and how soon they answer."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest

from runtime.cli import answer
from runtime.cli import runpipe as command_line
from runtime.config import CONFIGS
from tests.runtime.test_report_text import REPORT

HEAVY = {"torch", "av", "zmq"}
SLOWER = HEAVY | {"pydantic", "yaml", "numpy", "msgspec", "rich"}


@pytest.fixture
def say(tmp_path, monkeypatch, capfd):
    """Type words into the command line, in this process; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def type_words(*words):
        capfd.readouterr()
        code = answer([str(word) for word in words])
        return code, *capfd.readouterr()

    return type_words


def test_check_says_ok_and_what_there_is(say):
    code, out, err = say("check", "--config", "demo")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"ok: \S+/demo\.yaml: interpolate: read, encode, denoise, decode, write; "
        r"5 workers, no GPU\n",
        out,
    )


def test_check_counts_a_group_as_one_and_notes_missing_weights(say):
    code, out, err = say("check", "--config", "dual_gpu", "--set", "model.weights=no/eden.pt")
    assert code == 0
    assert out.endswith("; 9 workers, GPUs 0, 1\n")
    assert err == "runpipe: note: no/eden.pt: there is no such file yet\n"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("video.piars=4", "video.piars: no stage takes it; did you mean `pairs`?"),
        ("video.batch_size=4", "video.batch_size: no stage takes it; did you mean `video.pairs`"),
        ("model.device_ids=[0]", "model.device_ids: no stage takes it; did you mean `gpus`"),
        (
            "stages.denoise.with.use_batch_inference=true",
            "unknown to stages.eden:Denoise; leave it out: batches are fixed by `video.pairs`",
        ),
        ("stages.denoise.with.dtipe=x", "did you mean `dtype`?"),
        ("stages.read.use=nowhere:Read", "stages.read.use: there is no module nowhere"),
        ("stages.read.use=stages.video:Red", "stages.read.use: stages.video has no class `Red`"),
        ("stages.read.use=stages.videos:A", "stages.read.use: there is no module stages.videos"),
        ("run.seed=x", "--set run.seed=x: run.seed: wanted a whole number, found the text 'x'"),
    ],
)
def test_check_finds_what_a_run_would_stumble_over(say, override, complaint):
    code, out, err = say("check", "--config", "demo", "--set", override)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


MADE = """
from dataclasses import dataclass
@dataclass
class Data: amount: int = 0
Alias = Data
def make(name): globals()[name] = Data
class Made(Data): pass
if True:
    from tests.fakes import Add as Renamed
"""


@pytest.mark.parametrize(
    ("name", "code"),
    [("Data", 0), ("Alias", 0), ("Made", 0), ("Renamed", 2), ("Nothing", 0), ("make", 0)],
)
def test_check_leaves_to_the_run_what_the_text_does_not_tell(
    say, tmp_path, monkeypatch, name, code
):
    (tmp_path / "made.py").write_text(MADE)
    monkeypatch.syspath_prepend(tmp_path)
    sets = (f"stages.decode.use=made:{name}", "stages.decode.with.amuont=1")
    found, _out, err = say("check", "--config", "demo", "--set", sets[0], "--set", sets[1])
    assert (found, "did you mean `amount`?" in err) == (code, code == 2)


def test_schema_prints_what_lies_in_configs(say):
    assert say("schema") == (0, (CONFIGS / "schema.json").read_text(), "")


def test_doctor_prints_a_page_or_json(say, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # which would keep files of the driver open
    code, out, err = say("doctor")
    assert (code, err) == (0, "")
    assert "memfd" in out
    assert "demo.yaml" in out
    code, out, _err = say("doctor", "--json")
    assert code == 0
    assert json.loads(out)["host"]["cores"] >= 1


def test_report_prints_a_table_or_the_file_as_it_is(say, tmp_path):
    from runtime.report import write_report

    write_report(tmp_path / "report.json", REPORT)
    code, out, err = say("report", ".")
    assert (code, err) == (0, "")
    assert out.startswith("status    done\n")
    assert say("report", "report.json")[1] == out
    text = (tmp_path / "report.json").read_text()
    assert say("report", "--json", tmp_path) == (0, text, "")


def test_report_says_what_is_no_run(say, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.json").write_text("{}")
    for arguments, complaint in (
        (["none"], "none: there is no such run directory"),
        (["empty"], "empty: has no report.json: no run directory, or its run goes on"),
        (["."], "report.json: is no report: "),
        ([], "Missing argument 'DIR'"),
    ):
        code, out, err = say("report", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert complaint in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(say, shell):
    code, out, err = say("completion", shell)
    assert (code, err) == (0, "")
    assert f"_RUNPIPE_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("runpipe --config de", ["plain,demo"]),
        ("runpipe check --config ./x", ["file,./x"]),
        ("runpipe do", ["plain,doctor"]),
        ("runpipe check --s", ["plain,--set"]),
        ("runpipe completion f", ["plain,fish"]),
    ],
)
def test_a_shell_is_offered_names_commands_and_options(runpipe, words, offered, monkeypatch):
    monkeypatch.setenv("_RUNPIPE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    done = runpipe()
    assert done.returncode == 0
    assert done.stdout.split() == offered


def _examples():
    named = [command_line.get_command(None, name) for name in command_line.list_commands(None)]
    helps = [command.help for command in (command_line, *named)]
    typed = [
        words
        for text in helps
        for words in re.findall(r"^ *(?:source <.)?runpipe ([^#>)\n]+)", text, re.MULTILINE)
    ]
    return [pytest.param(words.split(), id=words.strip()) for words in typed]


@pytest.mark.parametrize("words", _examples())
def test_every_example_of_the_help_can_be_typed(words):
    named = command_line.get_command(None, words[0])
    (named or command_line).make_context("runpipe", words[named is not None :])


def test_every_option_says_what_it_does_and_its_default():
    for option in command_line.params:
        assert option.help, option.name
        told = {"config", "version"} & {option.name}
        assert told or "Default: " in option.help, option.name


def loaded_by(project, tmp_path, *arguments):
    """Return the packages that a command has loaded when it ends."""
    loaded = modules_of(project, tmp_path, *arguments)
    return {name.partition(".")[0] for name in loaded}


def modules_of(project, tmp_path, *arguments):
    """Return the modules that a command has loaded when it ends."""
    code = (
        "import sys; from runtime.cli import answer; code = answer(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project), *sys.path[1:]])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("line", "forbidden"),
    [
        ("--help", SLOWER),
        ("--version", SLOWER),
        ("check --help", SLOWER),
        ("completion zsh", SLOWER),
        ("check --config demo", HEAVY | {"numpy"}),
        ("schema", HEAVY | {"numpy"}),
        ("doctor", HEAVY),
    ],
)
def test_what_answers_at_once_loads_nothing_large(project, tmp_path, line, forbidden):
    assert loaded_by(project, tmp_path, *line.split()) & forbidden == set()


@pytest.mark.parametrize(
    ("line", "is_on"), [("check --config demo", False), ("--config demo --output there.mp4", True)]
)
def test_garbage_is_collected_only_once_a_run_begins(project, tmp_path, line, is_on):
    (tmp_path / "there.mp4").touch()  # so that the run is refused, before it starts anything
    code = "import gc; from runtime.cli import main; main(); print(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *line.split()],
        env={**os.environ, "PYTHONPATH": str(project)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == str(is_on), done.stderr


@pytest.mark.parametrize(
    ("line", "others"),
    [
        ("--version", {"check", "completion", "doctor", "report", "run", "schema"}),
        ("check --config demo", {"completion", "doctor", "report", "run", "schema"}),
    ],
)
def test_a_command_loads_no_other(project, tmp_path, line, others):
    loaded = modules_of(project, tmp_path, *line.split())
    assert {f"runtime.commands.{name}" for name in others} & loaded == set()


def test_no_garbage_is_looked_for_while_the_command_line_is_loaded(project, tmp_path):
    code = (
        "import gc, runtime; looks = lambda: sum(each['collections'] for each in gc.get_stats()); "
        "before = looks(); import runtime.__main__; print(looks() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(project)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) <= 1, done.stderr  # before its first line; with all imports over 20


@pytest.mark.parametrize(
    ("line", "most_s"), [("--help", 0.5), ("check --config demo", 1.0), ("schema", 1.0)]
)
def test_help_check_and_schema_answer_at_once(runpipe, line, most_s):
    """The aim is 0.3 s on a quiet machine; these bounds on CPU time hold on a busy one."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert runpipe(*line.split()).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < most_s
