"""The instants the fleet shares, as an agent knows them: heard, and on its clock."""

from __future__ import annotations

from shardagent import schedule
from shardagent.clock import Samples
from shardagent.wire import Instants, Plan, ShardPhase


class Timeline:
    """T0, T_hold, T_end and T_destroy of the Run, corrected at each heartbeat.

    The `…_us` attributes are agent time; None where not yet heard or not placeable.
    Each instant is placed by samples of the clock that stamped the answer it came
    with: after a restart of the site another clock may speak.
    """

    def __init__(self, plan: Plan, samples: Samples, clock_id: str) -> None:
        self.heard = Instants()
        self.clock_id = clock_id
        self.autonomous = False
        self.t0_us: int | None = None
        self.hold_us: int | None = None
        self.end_us: int | None = None
        self.destroy_us: int | None = None
        self.deadline_us: int | None = None
        self._plan = plan
        # From T0 to the hold deadline, and from T_end to T_destroy.
        self._hold_within_us = schedule.hold_deadline_us(plan, 0)
        self._teardown_us = schedule.teardown_us(plan)
        self._samples = samples
        self._clock_of: dict[str, str] = {}

    @property
    def latest_start_us(self) -> int | None:
        """After this a Shard that is not armed does not run."""
        if self.t0_us is None:
            return None
        return self.t0_us + schedule.microseconds(self._plan.late_join_s)

    @property
    def t_destroy_us(self) -> int | None:
        """T_destroy on the Run's clock: heard, or what T_end implies."""
        if self.heard.t_end_us is None:
            return None
        implied = self.heard.t_end_us + self._teardown_us
        return self.heard.t_destroy_us or implied

    def ttl_s(self, now: int) -> int:
        """A Sandbox's time to live at the Provider, from a create at `now`."""
        assert self.t0_us is not None
        ends_us = self.t0_us + self._hold_within_us + self._teardown_us
        return schedule.ttl_s(self._plan, ends_us - now)

    def samples(self) -> int:
        """How many samples the Run's clock has."""
        return self._samples.count(self.clock_id)

    def learn(self, clock_id: str, instants: Instants) -> dict[str, int]:
        """What is new in an answer; an instant once heard never changes."""
        if instants == self.heard:
            return {}
        known = self.heard.model_dump()
        news = {
            name: value
            for name, value in instants.model_dump().items()
            if value is not None and known[name] is None
        }
        if news:
            self.clock_id = clock_id
            self._clock_of.update(dict.fromkeys(news, clock_id))
            self.heard = self.heard.model_copy(update=news)
        return news

    def correct(self, *, started: bool) -> None:
        """Place all by the best samples; T0 moves no more once creates went out."""
        t0 = self.heard.t0_us
        if t0 is None:
            return
        if not started:
            self.t0_us = self._place("t0_us", t0)
        deadline = t0 + self._hold_within_us
        self.deadline_us = self._place("t0_us", deadline)
        self.hold_us = self._place("t_hold_us", self.heard.t_hold_us)
        self.end_us = self._place("t_end_us", self.heard.t_end_us)
        self.destroy_us = self._place("t_end_us", self.t_destroy_us)

    def end_alone(self) -> None:
        """No T_end was heard by the hold deadline: it is T_end."""
        assert self.heard.t0_us is not None
        t_end = self.heard.t0_us + self._hold_within_us
        t_destroy = t_end + self._teardown_us
        self.autonomous = True
        self._clock_of["t_end_us"] = self._clock_of["t0_us"]
        update = {"t_end_us": t_end, "t_destroy_us": t_destroy}
        self.heard = self.heard.model_copy(update=update)
        self.correct(started=True)

    def _place(self, name: str, run_us: int | None) -> int | None:
        if run_us is None:
            return None
        return self._samples.to_agent(run_us, self._clock_of[name])

    def dues(
        self, phase: ShardPhase, *, held: bool, destroyed: bool
    ) -> list[int | None]:
        """The instants that a Shard in this phase waits for."""
        if phase is ShardPhase.STARTING:
            latest_us = self.latest_start_us
            return [None if latest_us is None else latest_us + 1]
        if phase is ShardPhase.ARMED:
            return []  # T0 and the place of its first create: the Shard knows
        found = [] if held else [self.hold_us]
        if phase is not ShardPhase.TEARING_DOWN:
            found.append(self.end_us or self.deadline_us)
        elif not destroyed:
            found.append(self.destroy_us)
        return found
