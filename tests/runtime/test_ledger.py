from runtime.ledger import HERE, NOWHERE, Ledger


def told(ledger):
    return [(one.item, one.attempt, one.position, one.worker) for one in ledger.places()]


def test_it_tells_how_far_each_item_has_come():
    ledger = Ledger()
    ledger.open(window=4)
    ledger.take(0, 0, 1)
    ledger.take(1, 0, 1)
    assert ledger.send(0, 0, 2, "denoise/0")
    assert told(ledger) == [(0, 0, 2, "denoise/0"), (1, 0, 1, HERE)]
    assert ledger.num_here() == 1
    ledger.take(0, 0, 3)
    assert told(ledger)[0] == (0, 0, 3, HERE), "it is back, in a worker with two stages"
    assert ledger.num_here() == 2


def test_what_went_to_the_dead_is_nowhere_and_nothing_more_goes_there():
    ledger = Ledger()
    ledger.open(window=4)
    for item in range(3):
        ledger.take(item, 0, 1)
    ledger.send(0, 0, 2, "denoise/0")
    ledger.send(1, 0, 2, "denoise/1")
    ledger.lose("denoise/0", 0)
    assert not ledger.send(2, 0, 2, "denoise/0")
    places = [(0, 0, 2, NOWHERE), (1, 0, 2, "denoise/1"), (2, 0, 1, HERE)]
    assert told(ledger) == places, "the last one stays, as it could not be sent"
    assert ledger.meet("denoise/0", 1)
    assert ledger.send(2, 0, 2, "denoise/0")
    assert told(ledger)[0] == (0, 0, 2, NOWHERE), "what was sent before is not there"


def test_an_item_that_the_sink_took_is_here_until_it_is_durable():
    ledger = Ledger()
    ledger.open(window=4)
    ledger.take(0, 1, 2)
    ledger.start(0, 1)
    ledger.stop()
    assert told(ledger) == [(0, 1, 2, HERE)]
    ledger.drop(0)
    assert (told(ledger), ledger.num_here()) == ([], 0)


def test_older_attempts_are_dropped():
    ledger = Ledger()
    ledger.open(window=4)
    ledger.take(0, 0, 1)
    ledger.take(1, 1, 1)
    ledger.drop_older({0: 1, 1: 1, 2: 1})
    assert told(ledger) == [(1, 1, 1, HERE)]


def test_it_forgets_items_that_the_window_has_passed():
    ledger = Ledger()
    ledger.open(window=10)
    for item in range(0, 100_000, 3):  # one of three replicas: it does not see them all
        ledger.take(item, 0, 1)
        ledger.send(item, 0, 2, "denoise/0")
    kept = [one.item for one in ledger.places()]
    assert len(kept) <= 41
    assert set(range(99_990, 100_000, 3)) <= set(kept), "those of the window are known"


def test_heartbeats_learn_what_runs_and_how_far_it_is():
    ledger = Ledger()
    assert ledger.running().item == -1
    ledger.start(3, 2)
    ledger.tell(0.5)
    running = ledger.running()
    assert (running.item, running.attempt, running.progress) == (3, 2, 0.5)
    ledger.stop()
    assert ledger.running().item == -1


def test_a_worker_that_is_known_to_be_dead_again_is_not_met():
    """Its death is told to the small thread, and may overtake that it was back."""
    ledger = Ledger()
    ledger.open(window=4)
    ledger.take(0, 0, 1)
    ledger.lose("denoise/0", 1)
    assert not ledger.meet("denoise/0", 1)
    assert not ledger.send(0, 0, 2, "denoise/0")
    assert ledger.meet("denoise/0", 2)
    assert ledger.send(0, 0, 2, "denoise/0")


def test_a_death_that_is_told_late_is_not_that_of_who_is_back():
    """The small thread heard of it after the main thread had met the next incarnation."""
    ledger = Ledger()
    ledger.open(window=4)
    assert ledger.meet("denoise/0", 1)
    ledger.take(3, 0, 1)
    assert ledger.send(3, 0, 2, "denoise/0")
    ledger.lose("denoise/0", 0)
    assert told(ledger) == [(3, 0, 2, "denoise/0")]
    ledger.take(4, 0, 1)
    assert ledger.send(4, 0, 2, "denoise/0"), "nothing went there any more, for ever"
    ledger.lose("denoise/0", 1)
    assert not ledger.send(4, 0, 2, "denoise/0")


def test_nothing_goes_to_who_is_not_there_when_the_job_is_opened():
    ledger = Ledger()
    ledger.open(window=4)
    ledger.lose("denoise/0", -1)  # which incarnation comes back is not known
    assert not ledger.send(0, 0, 2, "denoise/0")
    assert ledger.meet("denoise/0", 1)
    assert ledger.send(0, 0, 2, "denoise/0")
