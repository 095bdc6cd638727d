import pytest

from stages.judging import ScoreByUrl
from stages.vision import make_torchvision_importable
from tests.stages.judging.groups import serving


@pytest.fixture(scope="session", autouse=True)
def torchvision():
    make_torchvision_importable()


@pytest.fixture(scope="session")
def tiny_judge(tmp_path_factory):
    """The folder of a dense one."""
    from tools.tiny_judge import make_tiny_judge

    return make_tiny_judge(tmp_path_factory.mktemp("judge") / "dense")


@pytest.fixture(scope="session")
def tiny_moe_judge(tmp_path_factory):
    from tools.tiny_judge import make_tiny_moe_judge

    return make_tiny_moe_judge(tmp_path_factory.mktemp("judge") / "moe")


@pytest.fixture
def serve():
    """Return a function that starts a server with this behaviour, and stops them all at the end."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda behave, **kwargs: stack.enter_context(serving(behave, **kwargs))


@pytest.fixture
def judge_at():
    """Return a function that makes a loaded judge, and closes them all at the end."""
    made = []

    def make(url, **settings):
        settings = {"protocol": "origin", "timeout_s": 60.0, "attempts": 2} | settings
        judge = ScoreByUrl(url=url, **settings)
        made.append(judge)
        judge.load("cpu")
        return judge

    yield make
    for judge in made:
        judge.close()
