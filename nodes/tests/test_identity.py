"""What makes two machines of one node, as a rule over values."""

from __future__ import annotations

import pytest

from nodes import identity
from nodes.identity import COUNT, INSTANCE, MACHINE, Known, Sighting, judge, recalled

KNOWN = Known("m1", "i1", 10)


def seen(misfit: str, machine: str = "m1", instance: str = "i1", beat: int = 1) -> Sighting:
    return Sighting(misfit, machine, instance, beat)


CASES = [
    (KNOWN, seen(MACHINE, machine="m2"), True, "i1"),
    (KNOWN, seen(INSTANCE, instance="i2"), False, "i2"),
    (Known("m1", "i2", 3, {"i1": 10}), seen(INSTANCE, beat=11), True, "i2"),
    (Known("m1", "i2", 3, {"i1": 10}), seen(INSTANCE, beat=10), False, "i2"),
    (KNOWN, seen(COUNT, beat=9), False, "i1"),
    (KNOWN, seen(MACHINE, machine=""), False, "i1"),  # its file could not be read once
    (Known("", "i1", 10), seen(MACHINE, machine="m2"), False, "i1"),
    (Known("", "", 0), seen(MACHINE, machine="m2", instance="i2"), False, "i2"),  # the first one of all
    (Known("m1", "", 0), seen(MACHINE, machine="m2", instance="i2"), True, ""),
]


@pytest.mark.parametrize(("known", "sighting", "is_clone", "instance"), CASES)
def test_the_rule(known: Known, sighting: Sighting, is_clone: bool, instance: str) -> None:
    verdict = judge(known, sighting, now=1000.0, interval_seconds=60)
    assert (bool(verdict.why), verdict.known.instance_id) == (is_clone, instance)


def test_a_count_that_goes_back_counts_only_after_a_new_highest_one_and_lately() -> None:
    known, at = KNOWN, 1000.0
    for _ in range(20):  # it stays low: somebody put a snapshot back
        verdict = judge(known, seen(COUNT), now=at, interval_seconds=60)
        known, at = verdict.known, at + 60
        assert not verdict.why
    assert len(known.back) <= 2
    known, at = KNOWN, 1000.0
    for n in range(1, 9):  # twice in ten intervals: crashes, each of which lost a count
        known = Known("m1", "i1", 10 + n, known.instances, known.back)
        verdict = judge(known, seen(COUNT), now=at, interval_seconds=60)
        known, at = verdict.known, at + 300
        assert not verdict.why
    for n in range(1, 9):
        known = Known("m1", "i1", 100 + n, known.instances, known.back)
        verdict = judge(known, seen(COUNT), now=at, interval_seconds=60)
        known, at = verdict.known, at + 60
        if verdict.why:
            break
    assert verdict.why
    assert n <= identity.TIMES_BACK


def test_what_is_remembered_is_bounded_and_survives_being_stored() -> None:
    known = Known("m1", "i0", 10, back=((9, 999.5),))
    for n in range(1, 40):
        known = judge(known, seen(INSTANCE, instance=f"i{n}"), now=1000.0, interval_seconds=60).known
    assert len(known.instances) == identity.MAX_INSTANCES
    kept = Known("m1", "i1", 10, {"i0": 4}, ((9, 999.5),))
    assert recalled("m1", "i1", 10, kept.memory()) == kept
    assert Known("m1", "i1", 10).memory() == {}


def test_an_expected_machine_is_taken_as_it_is() -> None:
    verdict = judge(
        KNOWN, seen(MACHINE, machine="m2", instance="i9", beat=3), now=0, interval_seconds=60, is_expected=True
    )
    assert verdict == identity.Verdict(Known("m2", "i9", 3))
