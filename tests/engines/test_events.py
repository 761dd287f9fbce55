"""What workers say, as lines for programs and for people."""

import pytest

from igkd_hpo.engines.events import Event


def test_a_line_gives_the_same_event() -> None:
    event = Event(kind="epoch", trial=3, attempt=2, epoch=4, accuracy=0.5, images_per_second=10.0)
    assert Event.from_line(event.to_line()) == event
    assert "\n" not in event.to_line()


def test_a_line_that_holds_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="not an event"):
        Event.from_line('{"colour": "red"}')


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event(kind="epoch", trial=1, control="kd", epoch=2, accuracy=0.5), "trial 1 (kd) epoch 2: 50.00 %"),
        (Event(kind="claimed", trial=1, attempt=2, device="cpu"), "trial 1, attempt 2 claimed"),
        (Event(kind="complete", trial=1, attempt=1, accuracy=0.75), "trial 1 complete 75.00 %"),
        (Event(kind="fail", trial=1, attempt=1, reason="no room"), "trial 1 fail: no room"),
        (Event(kind="storage", reason="the database is away"), "storage: the database is away"),
    ],
)
def test_people_read_a_sentence(event: Event, expected: str) -> None:
    assert event.for_people() == expected
