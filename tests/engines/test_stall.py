"""Hung is told from slow by the steps done."""

from igkd_hpo.engines.stall import SHORTEST_SILENCE_SECONDS, SLOWEST_START_SECONDS, USUAL_STEPS, StepWatch


class Watched:
    """A watch that somebody looks at every 5 seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.watch = StepWatch(longest_look=8.0, clock=lambda: self.now)

    def look_for(self, seconds: float) -> str | None:
        end = self.now + seconds
        while self.now < end:
            self.now += 5
            if reason := self.watch.hung():
                return reason
        return None

    def step_every(self, seconds: float, times: int) -> None:
        for done in range(times + 1):
            self.watch.steps(done + 1)
            if done < times:
                assert self.look_for(seconds) is None


def test_a_slow_start_is_not_hung_until_its_own_bound() -> None:
    watched = Watched()
    assert watched.look_for(SLOWEST_START_SECONDS - 5) is None
    assert watched.look_for(5) == "no first training step within 1800 s"


def test_quick_steps_that_cease_are_hung_after_the_shortest_silence() -> None:
    watched = Watched()
    watched.watch.steps(1)
    assert watched.look_for(5) is None
    watched.watch.steps(51)
    assert watched.look_for(SHORTEST_SILENCE_SECONDS - 5) is None
    assert watched.look_for(5) == "no training step for 300 s; one takes 0.1 s"


def test_slow_steps_have_a_hundred_times_their_own_time() -> None:
    watched = Watched()
    watched.step_every(60, 3)
    assert watched.look_for(USUAL_STEPS * 60 - 5) is None
    assert watched.look_for(5) == "no training step for 6000 s; one takes 60 s"


def test_time_in_which_nobody_looked_does_not_count() -> None:
    watched = Watched()
    watched.step_every(5, 1)
    watched.now += 100_000  # the worker was stopped, perhaps with all that it runs
    assert watched.watch.hung() is None
