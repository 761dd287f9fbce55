"""What workers say, as people read it."""

import pytest

from igkd_hpo.engines.events import Event


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
