"""The end of a run that is given as a time, and the number of updates that fit until then.

    clock = Clock(minutes=10)
    clock.start()
    while not clock.is_over(step):
        ...                                         # an update
        if clock.look(step, clock.seconds()):
            optimizer.plan(clock.total_steps)       # the schedule ends with the run

The first updates are slow (memory is taken, kernels are compiled), and are not measured. The plan is made
anew now and then, since a machine may become slower or faster.
"""

import time

WARM_UP = 5  # updates that are not measured
FIRST, AGAIN = 20.0, 30.0  # seconds until the first plan, and between others
FIRST_SHARE, AGAIN_SHARE = 0.1, 0.05  # of a short run's time


class Clock:
    """
    Args:
        minutes: after which the run ends; None: never.
        seconds: those that the run has taken before it was resumed.
        step: updates that it has made in this time.

    Attributes:
        total_steps: updates that the run will have made at its end; None as long as that is not known.
        now: seconds of the run, when it was last looked at.
    """

    def __init__(self, minutes: float | None, seconds: float = 0.0, step: int = 0) -> None:
        self.limit = None if minutes is None else 60 * minutes
        self.before = self.now = seconds
        self.total_steps: int | None = None
        self._started_at = time.perf_counter()
        self._first_step, self._mark = step, (step, seconds) if step else None
        limit = self.limit or 0.0
        self._again = min(AGAIN, AGAIN_SHARE * limit)
        self._next_at = seconds + min(FIRST, FIRST_SHARE * limit)
        if self.limit is not None and step and seconds:
            self.total_steps = step + self._steps_left(step / seconds)

    def start(self) -> None:
        """Count the time from now on."""
        self._started_at = time.perf_counter()

    def seconds(self) -> float:
        """Seconds of the run until now, also before it was resumed."""
        return self.before + time.perf_counter() - self._started_at

    def look(self, step: int, seconds: float) -> bool:
        """Note the time; return whether there is a new plan. All processes pass the main one's seconds."""
        self.now = seconds
        if self.limit is None:
            return False
        if self._mark is None or self._mark[0] == self._first_step:
            if step - self._first_step >= WARM_UP:
                self._mark = step, seconds
            return False
        steps, passed = step - self._mark[0], seconds - self._mark[1]
        if seconds < self._next_at or not steps or passed <= 0:
            return False
        self._next_at = seconds + self._again
        self.total_steps = step + self._steps_left(steps / passed)
        return True

    def _steps_left(self, rate: float) -> int:
        assert self.limit is not None
        return max(0, int(rate * (self.limit - self.now)))

    def is_over(self, step: int) -> bool:
        if self.limit is None:
            return False
        return self.now >= self.limit or (self.total_steps is not None and step >= self.total_steps)
