from runtime.ledger import Ledger


def test_what_was_sent_to_the_dead_is_not_held():
    ledger = Ledger()
    for item in range(4):
        ledger.take((item, 0))
    ledger.send((1, 0), "denoise/0")
    ledger.send((2, 0), "denoise/1")
    assert ledger.held(dead="denoise/0") == [(0, 0), (2, 0), (3, 0)]
    ledger.freed((2, 0))
    assert ledger.held(dead="denoise/0") == [(0, 0), (3, 0)]


def test_an_item_that_the_sink_took_is_held_until_it_is_durable():
    ledger = Ledger()
    ledger.take((0, 1))
    ledger.start((0, 1))
    ledger.stop()
    assert ledger.held(dead="x/0") == [(0, 1)]
    ledger.drop((0, 1))
    assert ledger.held(dead="x/0") == []


def test_heartbeats_learn_what_runs_and_how_far_it_is():
    ledger = Ledger()
    assert ledger.running().item == -1
    ledger.start((3, 2))
    ledger.tell(0.5)
    running = ledger.running()
    assert (running.item, running.attempt, running.progress) == (3, 2, 0.5)
    ledger.stop()
    assert ledger.running().item == -1
