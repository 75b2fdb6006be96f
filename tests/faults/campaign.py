"""Jobs without end while everything is killed and cut at random, and a verdict on all of it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from hyprbox.lib.postgres import PostgresUnavailable
from tests.faults.checker import CHECKS, NORMAL_SECONDS, Violation, check
from tests.faults.evidence import Drain, Use, Window, gather, stored, uses_of
from tests.faults.proxy import Rates
from tests.faults.stack import Stack, settled
from tests.faults.witness_preset import Plan

MIB = 1024 * 1024
# What T-NET-1 asks for; a replayed poll would only claim work for nobody, so that is for the calls that change something.
LOSSY = Rates(drop=0.2, duplicate=0.1, cut=0.05, delay=0.15, truncate=0.03, delay_seconds=1.5)
ROUGH = Rates(drop=0.05, duplicate=0.05, cut=0.03, delay=0.05, truncate=0.02, replay=0.04, delay_seconds=0.5)
# What waits when the faults are over, and how many a second come while it is worked off.
WAITING, ARRIVAL = 12, 0.5
TARGETS = ("agent", "agent", "runner", "host", "web", "worker", "postgres", "restart")


@dataclass(frozen=True)
class Verdict:
    """What a run did and what was found."""

    seed: int
    jobs: int
    kills: dict[str, int]
    faults: dict[str, int]
    seconds: float
    windows: int
    violations: list[Violation]
    drain: Drain | None = None

    @property
    def bound(self) -> float:
        """With no failure in N trials the chance of one is, with 95 % confidence, at most 3/N."""
        return 3 / self.jobs if self.jobs else 1.0

    def text(self) -> str:
        lines = [
            f"seed        {self.seed}",
            f"time        {self.seconds:.0f} s",
            f"jobs        {self.jobs}",
            f"kills       {sum(self.kills.values())}  {_listed(self.kills)}",
            f"faults      {sum(self.faults.values())}  {_listed(self.faults)}",
            f"invariants  {len(CHECKS)}  {' '.join(CHECKS)}",
            f"windows     {self.windows} looks at output while it came",
            *([f"backlog     {self._drained(self.drain)}"] if self.drain else []),
            f"violations  {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations),
        ]
        if not self.violations:
            lines.append(f"bound       at most {self.bound:.2%} of jobs can go wrong (95 %, 3/N)")
        return "\n".join(lines)

    @staticmethod
    def _drained(drain: Drain) -> str:
        return f"{drain.waiting} jobs worked off at {drain.rate:.1f} a second while {drain.arrival:.1f} a second came"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


@dataclass
class Campaign:
    """One run on one stack. `stop` may be set at any time: what was ordered is still seen to its end."""

    stack: Stack
    seed: int
    targets: tuple[str, ...] = TARGETS
    kill_every: tuple[float, float] = (1.0, 4.0)
    rates: Rates = ROUGH
    cancel_share: float = 0.06
    big_share: float = 0.04
    limit: int = 12  # orders that wait at once
    with_backlog: bool = False  # in the end, is a backlog worked off as fast as it should be
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._windows: list[Window] = []
        self._numbers = 0
        self._uses: list[Use] = []
        self._normal_after: float | None = None
        self._drain: Drain | None = None

    def run(self, *, seconds: float = 0, jobs: int = 0, settle_seconds: float = 120) -> Verdict:
        """For so long, or until so many were ordered; then the faults end, everything settles, and is checked."""
        began = time.monotonic()
        usual = self._answer_seconds(10)
        self.stack.proxy.rates = self.rates
        next_kill = began + self._chance.uniform(*self.kill_every)
        looking = threading.Thread(target=self._look_at_output, name="windows", daemon=True)
        self._is_over = threading.Event()
        looking.start()
        try:
            while not self._is_enough(began, seconds, jobs):
                now = time.monotonic()
                if self.targets and now >= next_kill:
                    self._strike()
                    next_kill = now + self._chance.uniform(*self.kill_every)
                self._order_something()
                self._perhaps_cancel()
                self.stop.wait(0.05)
            self._let_settle(settle_seconds)
            self._normal_after = self._seconds_to_normal(usual)
            if self.with_backlog and not self.stop.is_set():
                self._drain = self._work_off_a_backlog(settle_seconds)
        finally:
            self._is_over.set()
            looking.join(30)
        return self._verdict(time.monotonic() - began)

    def _is_enough(self, began: float, seconds: float, jobs: int) -> bool:
        is_late = bool(seconds) and time.monotonic() - began >= seconds
        return self.stop.is_set() or is_late or (bool(jobs) and self._numbers >= jobs)

    # --- what people do ---

    def _open_orders(self) -> int | None:
        with suppress(psycopg.Error):
            return int(self.stack.sql("SELECT count(*) FROM jobs_job WHERE status IN ('QUEUED', 'RUNNING')")[0][0])
        return None  # the database is away

    def _order_something(self) -> None:
        waiting = self._open_orders()
        if waiting is not None and waiting >= self.limit:
            return
        self._numbers += 1
        self.stack.people.order(self._chance.choice(self.stack.nodes), self._plan())

    def _plan(self) -> Plan:
        chance = self._chance
        sizes = (0, 1, 1000, 65_536, 300_000)
        is_big = chance.random() < self.big_share
        return Plan(
            nonce=f"job_{self.seed}_{self._numbers}",
            seed=chance.randrange(2**31),
            stdout_bytes=chance.choice((4 * MIB, 4 * MIB + 1, 6 * MIB)) if is_big else chance.choice(sizes),
            stderr_bytes=chance.choice(sizes[:4]),
            exit_code=chance.choice((0, 0, 0, 1, 3, 78, 255)),
            tenths=chance.choice((0, 0, 1, 3, 10)),
            leftover=int(chance.random() < 0.05),
        )

    def _perhaps_cancel(self) -> None:
        if self._chance.random() >= self.cancel_share * 0.3:
            return
        orders = [asked for asked in self.stack.people.asked.values() if asked.job_id][-self.limit :]
        if orders:
            self.stack.people.cancel(self._chance.choice(orders))

    # --- what fate does ---

    def _strike(self) -> None:
        stack, target = self.stack, self._chance.choice(self.targets)
        strikes: dict[str, Callable[[], object]] = {
            "agent": lambda: stack.kill(self._chance.choice(stack.nodes)),
            "runner": self._kill_some_runner,
            "host": lambda: stack.kill_host(self._chance.choice(stack.nodes)),
            "restart": lambda: stack.children[self._chance.choice(("web", "worker", *stack.nodes))].end(),
            "rolling": self._roll,
            "postgres": stack.kill_postgres,
        }
        strikes.get(target, lambda: stack.kill(target))()
        self.stop.wait(self._chance.uniform(0, 0.5))
        self._bring_back()

    def _roll(self) -> None:
        """One after the other, as in an upgrade: a second one of each serves meanwhile."""
        for name in ("web", "web-2", "worker", "worker-2"):
            self.stack.restart(name)
            self.stack.wait_ready()
            self.stack.kills["rolling"] += 1

    def _kill_some_runner(self) -> None:
        running = sorted(self.stack.runners())
        if running:
            self.stack.kill_runner(self._chance.choice(running))

    def _bring_back(self) -> None:
        with suppress(PostgresUnavailable):  # a moment later it can
            self.stack.bring_back()

    # --- what is looked at meanwhile, and at the end ---

    def _look_at_output(self) -> None:
        """Pieces of output while they come; a database that is away is looked at later."""
        chance = random.Random(self.seed + 1)
        looks = 0
        while not self._is_over.wait(0.5):
            looks += 1
            if looks % 3 == 0:
                self._uses += uses_of(self.stack)
            with suppress(psycopg.Error):
                rows = self.stack.sql(
                    "SELECT j.id::text FROM jobs_job j JOIN jobs_transcript t ON t.job_id = j.id "
                    "WHERE j.status = 'RUNNING' AND t.stdout_bytes > 0"
                )
                if not rows:
                    continue
                job_id = str(chance.choice(rows)[0])
                for kept in stored(self.stack, "stdout", job_id).values():
                    self._windows.append(Window(job_id, "stdout", kept.total, kept.first, kept.data))

    def _let_settle(self, seconds: float) -> None:
        self.stack.proxy.rates = Rates()
        self._bring_back()
        self.stack.wait_ready()
        for asked in list(self.stack.people.asked.values()):
            if not asked.job_id:  # whoever got no answer asks again
                self.stack.people.order_until_told(asked.node, asked.plan)
        settled(self.stack, seconds=seconds)

    def _answer_seconds(self, calls: int) -> list[float]:
        """How long a person waits for an answer; what is no answer counts as a minute."""
        seconds = []
        for _ in range(calls):
            began = time.monotonic()
            answer = self.stack.people.call("GET", "/api/jobs?page_size=1")
            seconds.append(time.monotonic() - began if answer is not None and answer.status_code == 200 else 60.0)
            self.stop.wait(0.06)
        return seconds

    def _seconds_to_normal(self, usual: list[float]) -> float | None:
        """Until ten answers in a row are as quick as before the faults, give or take what else this machine does."""
        began, bound = time.monotonic(), max(1.0, 5 * sorted(usual)[-2])
        while (after := time.monotonic() - began) <= NORMAL_SECONDS:
            if max(self._answer_seconds(10)) <= bound:
                return after
        return None

    def _work_off_a_backlog(self, seconds: float) -> Drain:
        """Nothing is handed out for a moment, orders pile up, and more come while they are worked off."""
        self._switch("POST", 200, 201)
        for _ in range(WAITING):
            self._order_a_small_one()
        began, arrived = time.monotonic(), 0
        self._switch("DELETE", 200, 204)
        while (after := time.monotonic() - began) < seconds:
            if self._open_orders() == 0:
                break
            if after * ARRIVAL >= arrived + 1:
                arrived += 1
                self._order_a_small_one()
            time.sleep(0.05)
        return Drain(WAITING, arrived, after, ARRIVAL)

    def _switch(self, method: str, *good: int) -> None:
        answer = self.stack.people.call(method, "/api/jobs/stop", **({"json": {}} if method == "POST" else {}))
        assert answer is not None and answer.status_code in good, answer

    def _order_a_small_one(self) -> None:
        self._numbers += 1
        plan = Plan(nonce=f"job_{self.seed}_{self._numbers}", seed=self._numbers, stdout_bytes=100)
        self.stack.people.order_until_told(self.stack.nodes[self._numbers % len(self.stack.nodes)], plan)

    def _verdict(self, seconds: float) -> Verdict:
        evidence = gather(
            self.stack, self._windows, uses=self._uses, normal_after=self._normal_after, drain=self._drain
        )
        counts = {kind: count for kind, count in self.stack.proxy.counts.items() if count}
        kills = dict(self.stack.kills)
        found, looks = check(evidence), len(self._windows)
        return Verdict(self.seed, len(evidence.jobs), kills, counts, seconds, looks, found, self._drain)
