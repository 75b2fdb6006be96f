"""Run by `bench_login` in a process of its own. Prints medians (clock, CPU) in ms as JSON, with real hashes."""

from __future__ import annotations

import json
import random
import statistics
import time

import django
import pyotp

django.setup()


from accounts import factors, people, services
from accounts.errors import WrongCredentials
from accounts.models import RateCounter
from accounts.selectors import actor_for, find_by_email
from hyprbox.lib.actors import Actor

ROUNDS = 15
PASSWORD = "correct horse battery staple"
SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


def milliseconds(email: str, password: str, otp: str) -> tuple[float, float]:
    """By the clock, and of CPU."""
    RateCounter.objects.all().delete()
    started, used = time.perf_counter(), time.process_time()
    try:
        services.check_credentials(email=email, password=password, otp=otp, by=Actor.anonymous(ip="10.0.0.1"))
    except WrongCredentials:
        return (time.perf_counter() - started) * 1000, (time.process_time() - used) * 1000
    raise RuntimeError(f"{email} could log in")


def main() -> None:
    system = Actor.system("bench")
    for name in ("wrong", "disabled"):
        people.create_user(by=system, email=f"{name}@example.com", password=PASSWORD, role="admin")
    disabled = find_by_email("disabled@example.com")
    assert disabled is not None
    people.change_user(by=system, user_id=disabled.pk, is_active=False)
    factor = people.create_user(by=system, email="factor@example.com", password=PASSWORD, role="admin")
    factors.add_totp(by=actor_for(factor), seed=SEED, code=pyotp.TOTP(SEED).now())
    kinds = {
        "unknown": ("nobody@example.com", PASSWORD, ""),
        "wrong": ("wrong@example.com", "not the password", ""),
        "disabled": ("disabled@example.com", PASSWORD, ""),
        "factor, wrong password": ("factor@example.com", "not the password", ""),
        "factor missing": ("factor@example.com", PASSWORD, ""),
        "wrong code": ("factor@example.com", PASSWORD, "000000"),
        "wrong password and a recovery code": ("factor@example.com", "not the password", "aaaaa-aaaaa"),
        "wrong recovery code": ("factor@example.com", PASSWORD, "aaaaa-aaaaa"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(ROUNDS + 1):  # mixed, so that what else the machine does meets all of them
        for name, given in random.sample(list(kinds.items()), len(kinds)):
            times[name].append(milliseconds(*given))
    print(
        json.dumps(
            {
                name: [statistics.median(column) for column in zip(*found[1:], strict=True)]
                for name, found in times.items()
            }
        )
    )


if __name__ == "__main__":
    main()
