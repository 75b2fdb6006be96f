"""How guessing is slowed down, with attempts that really come at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.db import connection

from accounts import hashing, rates, services
from accounts.errors import TooManyLogins, WrongCredentials
from accounts.models import RateCounter
from hyprbox.lib.actors import Actor
from hyprbox.lib.errors import RateLimited
from tests.factories import PASSWORD, make_user
from tests.house import ROOT


def attempt(ip: str, email: str = "otto@example.com", password: str = "wrong password") -> str:
    try:
        services.check_credentials(email=email, password=password, by=Actor.anonymous(ip=ip))
    except WrongCredentials:
        return "wrong"
    except TooManyLogins:
        return "refused"
    return "right"


def from_thread(ip: str) -> str:
    try:
        return attempt(ip)
    finally:
        connection.close()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each password that reached the hasher: how many were in it at that moment."""
    seen: list[int] = []
    inside, lock = [0], threading.Lock()

    def counted(verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                inside[0] += 1
                seen.append(inside[0])
            try:
                return verb(*args, **kwargs)
            finally:
                with lock:
                    inside[0] -= 1

        return call

    monkeypatch.setattr(hashing.hashers, "check_password", counted(hashers.check_password))
    return seen


@pytest.mark.parametrize(
    "ip_of", [lambda n: "10.0.0.1", lambda n: f"10.0.{n // 250}.{n % 250}"], ids=["one address", "200 addresses"]
)
@pytest.mark.django_db(transaction=True)
def test_of_two_hundred_at_once_at_most_ten_reach_the_hasher(hashed: list[int], ip_of: Callable[[int], str]) -> None:
    make_user("otto")
    with ThreadPoolExecutor(11) as pool:
        answers = list(pool.map(from_thread, map(ip_of, range(200))))
    assert 5 <= len(hashed) <= 10
    assert answers.count("wrong") == len(hashed)
    assert max(hashed) <= 4


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_they_are_counted_across_processes() -> None:
    make_user("otto")
    code = (
        "import django; django.setup()\n"
        "from django.db import connections\n"
        f"connections['default'].settings_dict['NAME'] = {connection.settings_dict['NAME']!r}\n"
        "from django.contrib.auth.hashers import BCryptSHA256PasswordHasher as bcrypt; bcrypt.rounds = 4\n"
        "from accounts.tests.test_login_rates import attempt\n"
        "print(sum(attempt('10.0.0.1') != 'refused' for _ in range(20)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        passed = 0
        while other.poll() is None and passed < 4:
            passed += attempt(f"10.0.0.{passed + 2}") != "refused"
        passed_there = int(other.stdout.read())
    assert 5 <= passed + passed_there <= 10


def test_each_failure_doubles_the_delay_up_to_a_quarter_of_an_hour(db: None) -> None:
    key, waits = rates.account_key("someone"), []
    for _ in range(16):
        rates.reserve(key)
        counter = RateCounter.objects.get(key=key)
        blocked_until = counter.blocked_until
        waits.append(round((blocked_until - counter.window_started_at).total_seconds()) if blocked_until else 0)
        if waits[-1] >= 8:  # what is shorter may be over when a machine stalls
            with pytest.raises(TooManyLogins) as caught:
                rates.reserve(key)
            assert waits[-1] - 5 < caught.value.retry_after <= waits[-1]
        RateCounter.objects.update(blocked_until=None)
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_a_success_forgets_the_failures(db: None) -> None:
    make_user("otto")
    for _ in range(3):
        for _ in range(4):
            assert attempt("10.0.0.1") == "wrong"
        RateCounter.objects.filter(key__startswith="login-ip").delete()
        assert attempt("10.0.0.1", password=PASSWORD) == "right"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)
def test_ipv6_is_counted_by_its_network(db: None, one: str, other: str, is_same: bool) -> None:
    for number in range(10):
        assert attempt(one, f"nobody-{number}@example.com") == "wrong"
    assert attempt(other, "nobody@example.com") == ("refused" if is_same else "wrong")


def test_a_forged_forwarded_address_changes_nothing(api: Any, db: None) -> None:
    body = {"email": "nobody@example.com", "password": "wrong password"}
    statuses = []
    for number in range(11):
        body["email"] = f"nobody-{number}@example.com"
        statuses.append(api.post("/api/auth/login", body, x_forwarded_for=f"203.0.113.{number}").status_code)
    assert statuses == [401] * 10 + [429]


@pytest.mark.parametrize(("slots", "most"), [(None, 4), (threading.BoundedSemaphore(100), 12)], ids=["four", "without"])
def test_four_at_once_are_in_the_hasher(
    monkeypatch: pytest.MonkeyPatch, slots: threading.BoundedSemaphore | None, most: int
) -> None:
    """Of twelve that come together. Without the semaphore all of them are: the test would notice."""
    if slots is not None:
        monkeypatch.setattr(hashing, "_SLOTS", slots)
    inside, reached, lock = [0], [0], threading.Lock()
    full, free = threading.Event(), threading.Event()

    def slow(password: str) -> str:
        with lock:
            inside[0] += 1
            reached[0] = max(reached[0], inside[0])
            if inside[0] == most:
                full.set()
        assert free.wait(10)
        with lock:
            inside[0] -= 1
        return "hash"

    monkeypatch.setattr(hashing.hashers, "make_password", slow)
    verbs: list[Callable[[], Any]] = [lambda: hashing.hashed("x"), lambda: hashing.is_right("x", None)]
    with ThreadPoolExecutor(12) as pool:
        done = [pool.submit(verbs[number % 2]) for number in range(12)]
        assert full.wait(10)
        time.sleep(0.2)  # the others have had the time to come as well
        free.set()
        assert [one.result(10) for one in done] == ["hash", False] * 6
    assert reached[0] == most


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["login", "register", "refresh", "reset"])
def test_every_counter_is_one_for_all_processes(what: str) -> None:
    """Two processes together let as many through as one would."""
    code = (
        "import django; django.setup()\n"
        "from django.db import connections\n"
        f"connections['default'].settings_dict['NAME'] = {connection.settings_dict['NAME']!r}\n"
        "from accounts.tests.test_login_rates import taken\n"
        f"print(sum(taken({what!r}) for _ in range(50)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        here = sum(taken(what) for _ in range(3))
        there = int(other.stdout.read())
    assert here == 3 and there == rates.PER_MINUTE[what] - 3
    assert not taken(what) and taken(what, ip="10.0.0.2")


def taken(what: str, ip: str = "10.0.0.1") -> bool:
    try:
        rates.take_from(ip, what)
    except RateLimited:
        return False
    return True
