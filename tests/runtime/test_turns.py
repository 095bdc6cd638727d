from runtime.turns import SinkTurns


def order(**keywords):
    turns = SinkTurns(**keywords)
    items = []
    while (item := turns.next_item()) is not None:
        items.append(item)
        turns.took()
    return items


def test_each_replica_takes_its_own_segments_in_order():
    shape = {"num_items": 11, "items_per_segment": 2, "num_replicas": 2}
    assert order(replica=0, **shape) == [0, 1, 4, 5, 8, 9]
    assert order(replica=1, **shape) == [2, 3, 6, 7, 10]


def test_items_that_are_durable_already_are_not_waited_for():
    shape = {"num_items": 8, "items_per_segment": 2, "num_replicas": 1, "replica": 0}
    assert order(durable=[(0, 2), (4, 6)], **shape) == [2, 3, 6, 7]


def test_a_replica_may_have_nothing_to_do():
    assert order(num_items=2, items_per_segment=4, replica=1, num_replicas=2) == []


def test_it_knows_what_was_taken_and_what_will_not_come():
    turns = SinkTurns(
        num_items=9, items_per_segment=2, replica=0, num_replicas=1, durable=[(0, 2), (6, 8)]
    )
    turns.took()
    assert turns.next_item() == 3
    assert [item for item in range(9) if turns.has_taken(item)] == [0, 1, 2, 6, 7]
