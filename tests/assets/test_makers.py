"""What living processes are making, seen by their locks."""

from contextlib import suppress

import pytest

from igkd_hpo.assets.makers import work_in
from igkd_hpo.assets.progress import SilentProgress


class Killed(Exception):
    """Ends a maker at its work."""


def test_a_maker_is_seen_while_it_lives_and_not_what_it_leaves(store):
    assert work_in(store.root) is None
    with suppress(Killed), store.build("teacher", {"of": 1}, SilentProgress()):
        assert work_in(store.root) == "trains the teacher"
        raise Killed
    assert list(store.root.glob("teacher-*.partial"))
    assert work_in(store.root) is None


def test_a_finished_asset_that_is_opened_is_no_work(store):
    with store.build("teacher", {"of": 1}, SilentProgress()) as draft:
        draft.commit({})
    with store.build("teacher", {"of": 1}, SilentProgress()):
        assert work_in(store.root) is None


@pytest.mark.parametrize("kind", ["maps", "logits"])
def test_of_two_makers_the_one_that_is_nearer_to_trials_is_told(store, kind):
    with (
        store.build("dataset", {"of": 1}, SilentProgress()),
        store.build(kind, {"of": 1}, SilentProgress()),
    ):
        assert work_in(store.root) not in (None, "reads images")
    assert work_in(store.root) is None
