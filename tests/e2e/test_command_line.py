"""What people type, and what they get when it is wrong."""

import configparser
import json
import os
import sys
from types import SimpleNamespace

import pytest

from runtime.cli import answer
from runtime.config import PROJECT


@pytest.fixture
def say(tmp_path, monkeypatch, capfd):
    """Type words into the command line, in this process; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def type_words(*words):
        capfd.readouterr()
        code = answer([str(word) for word in words])
        return code, *capfd.readouterr()

    return type_words


def test_dry_run_prints_workers_pools_and_links_and_leaves_nothing(runpipe, tmp_path):
    done = runpipe("--config", "demo.yaml", "--set", "model.weights=random:0:tiny", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "59 frame pairs in 30 items" in done.stdout
    for worker in ("read/0", "encode/0", "denoise/0", "decode/0", "write/0"):
        assert worker in done.stdout
    assert "tokens_dec" in done.stdout
    assert list(tmp_path.iterdir()) == []


COPY = """
pipeline: copy
stages:
  read: {use: "stages.video:ReadVideo", with: {pairs: 2}}
  add: {use: "tests.fakes:Add", with: {reads: frames}}
  write: {use: "tests.fakes:Lines"}
"""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--config copy.yaml --input here.mp4 --output out.mp4", "here.mp4: not a video"),
        ("--config demo --set model.weights=eden.pt", "eden.pt: no such file; fetch"),
    ],
)
def test_what_only_a_worker_finds_is_told_too_and_nothing_left(runpipe, tmp_path, line, complaint):
    (tmp_path / "here.mp4").write_text("mine")
    (tmp_path / "copy.yaml").write_text(COPY)
    files = [path.name for path in tmp_path.iterdir()]
    done = runpipe(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == files


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--config dmeo.yaml", "dmeo.yaml: no such config"),
        ("--config demo --input none.mp4", "none.mp4: no such input"),
        ("--config demo --set video.piars=4", "did you mean `pairs`?"),
        ("--config demo --set stages.denoise.gpu=[0]", "did you mean `gpus`?"),
        ("--config demo --set stages.denoise.device_ids=[0]", "did you mean `gpus`, which each"),
        ("--config demo --set batch_size=4", "did you mean `video.pairs`, the frame pairs"),
        ("--config demo --set use_batch_inference=true", "leave it out: batches are fixed"),
        ("--config demo --set run.seed", "--set run.seed: wanted KEY=VALUE"),
        ("--config demo --seed -1", "'--seed': -1 is not in the range"),
        ("--config demo --seed 9223372036854775808", "run.seed: wanted less than"),
        ("--config demo --output here.mp4", "here.mp4: exists; say --overwrite"),
        ("--config demo --output no/where.mp4", "there is no folder"),
        ("--config single_gpu --input here.mp4", "no output"),
        ("--config single_gpu --input here.mp4 --output o.mp4", "this host has none"),
        ("--config here.mp4", "wanted a mapping with `pipeline` and `stages`, found 'mine'"),
        ("--config .", ".: is a directory; name a YAML file"),
        ("--confg demo", "No such option"),
        ("--input here.mp4", "--config is missing: say what to run, such as `runpipe --config"),
        ("--config", "requires an argument"),
        ("--config demo --dry-run --json", "--dry-run runs nothing; drop one"),
        ("--resume here.mp4", "here.mp4: there is no such run directory"),
        ("--resume .", "nothing can be resumed from here: no job.json"),
        ("--resume . --dry-run", "--resume goes on with one; drop one"),
        ("--resume . --run-dir .", "--resume names the run directory already; drop --run-dir"),
        ("--config demo --force", "--force goes with --resume"),
        ("--config demo check", "--config stands before `check`; options of a command follow it"),
        ("-v doctor", "--verbose stands before `doctor`"),
        ("demo", "no such command `demo`; did you mean `--config demo`?"),
        ("my/film.yaml", "did you mean `--config my/film.yaml`?"),
        ("here.mp4", "no such command `here.mp4`; name files with --config, --input and --output"),
        ("chekc --config demo", "no such command `chekc`; did you mean `check`?"),
        ("check", "Missing option '--config'"),
        ("schema demo", "unexpected extra argument"),
        ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_whatever_is_mistyped_is_answered_in_one_line(say, tmp_path, line, complaint):
    if "single_gpu" in line and os.path.exists("/dev/nvidia0"):
        pytest.skip("this host has a GPU")
    (tmp_path / "here.mp4").write_text("mine")
    code, out, err = say(*line.split())
    told = [words for words in err.splitlines() if "random weights" not in words]
    assert (code, out, len(told)) == (2, "", 1), err
    assert told[0].startswith("runpipe: ")
    assert complaint in told[0]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["here.mp4"]
    assert (tmp_path / "here.mp4").read_text() == "mine"


def test_nothing_typed_is_answered_with_the_help(say):
    code, out, err = say()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: runpipe --config NAME_OR_PATH [OPTIONS]\n       runpipe COMMAND")
    assert say("--help") == (0, err, "")


def test_the_version_is_that_of_the_package(say):
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "setup.cfg")
    version = parser["metadata"]["version"]
    assert say("--version")[1].startswith(f"runpipe {version}, Python 3.")


FAKE = """
pipeline: fake
stages:
  read: {use: "tests.fakes:Numbers"}
  add: {use: "tests.fakes:Add"}
  write: {use: "tests.fakes:Lines"}
"""


@pytest.fixture
def fake(tmp_path, numbers):
    """Write a pipeline of fake stages; return the words that run it."""
    (tmp_path / "fake.yaml").write_text(FAKE)
    numbers(8)
    return ["--config", "fake.yaml", "--input", "8.txt", "--output", "out.txt", "--run-dir", "run"]


def test_a_run_is_told_in_one_line_and_quiet_tells_nothing(say, fake):
    code, out, err = say(*fake)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    assert "out.txt" in out
    code, out, err = say(*fake[:-1], "again", "--overwrite", "--quiet")
    assert (code, out, err) == (0, "", "")


def test_json_is_the_report_and_nothing_else(say, fake, tmp_path):
    code, out, _err = say(*fake, "--json", "--seed", "7", "--strict")
    assert code == 0
    assert out == (tmp_path / "run/report.json").read_text()
    assert json.loads(out)["fingerprint"]["seed"] == 7


def test_a_run_that_fails_leads_to_its_report(say, fake, tmp_path):
    (tmp_path / "fake.yaml").write_text(FAKE.replace('Add"', 'RaisesAt", with: {poison: 3}'))
    code, out, err = say(*fake, "--json")
    assert code == 1
    assert json.loads(out)["status"] == "failed"
    assert err.endswith("; see `runpipe report run`\n")
    code, out, _err = say("report", "run")
    assert code == 0
    assert "\nfailures\n" in out


class OneGpu:
    """What NVML says on a host with one GPU."""

    NVMLError = RuntimeError

    def nvmlInit(self):
        pass

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetCount(self):
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return "GPU-1"

    def nvmlDeviceGetName(self, handle):
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=2**37, free=2**37)


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_strict_refuses_fewer_gpus_than_asked_for(say, tmp_path, monkeypatch, more):
    monkeypatch.setitem(sys.modules, "pynvml", OneGpu())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "here.mp4").write_text("mine")
    line = "--config dual_gpu --input here.mp4 --output out.mp4 --strict"
    code, out, err = say(*line.split(), *more)
    assert (code, out) == (2, "")
    assert err == (
        "runpipe: denoise: GPU 1 is asked for and this host has 1; GPU 0 takes its part; "
        "refused, as --strict (`run.strict`) says\n"
    )
    assert not list(tmp_path.glob("runs/*"))
