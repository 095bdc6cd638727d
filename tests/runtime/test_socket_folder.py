import fcntl
from contextlib import closing

from runtime.socket_folder import SocketFolder, remove_left_folders


def test_a_folder_that_another_run_removes_before_it_is_locked_is_made_again(monkeypatch):
    flock, removed = fcntl.flock, []

    def late(descriptor, how):
        if how == fcntl.LOCK_EX and not removed:
            removed.append(descriptor)
            remove_left_folders()  # as a run that starts at the same moment
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with closing(SocketFolder()) as made:
        assert removed
        assert made.path.is_dir()
        remove_left_folders()
        assert made.path.is_dir(), "it is in use"
    assert not made.path.exists()
