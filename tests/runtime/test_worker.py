import logging

from runtime.pipeline import Pipeline


def test_idle_workers_stop_when_they_are_asked_and_need_no_signal(
    make_config, numbers, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    with Pipeline(make_config()) as pipeline:
        pipeline.run(input=numbers(5), output=tmp_path / "out", run_dir=tmp_path / "run")
    assert "run status=done" in caplog.text
    assert "stopping worker" not in caplog.text
