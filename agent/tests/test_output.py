"""Output by size and shape, from bash through the spool and HTTP to what the server keeps."""

from __future__ import annotations

import hashlib
import random
import sys

import pytest

from agent.tests.plane import CAP

pytestmark = pytest.mark.slow
PATTERN = bytes(range(256)) * 1021 + b"\x00\xff"


def writer(size: int, stream: str = "stdout") -> str:
    return (
        f"{sys.executable} -c 'import sys; n={size}; b=bytes(range(256))*1021+bytes([0,255]);"
        f"w=sys.{stream}.buffer.write; [w(b) for _ in range(n//len(b))]; w(b[:n%len(b)])'"
    )


def pattern(size: int) -> bytes:
    return PATTERN * (size // len(PATTERN)) + PATTERN[: size % len(PATTERN)]


def arrived(plane, job, stream: str, whole: bytes) -> None:
    stored = job.streams[stream]
    assert bytes(stored.data) == whole[-CAP:] if whole else not stored.data
    assert (stored.total, job.result[f"{stream}_bytes"]) == (len(whole), len(whole))
    assert job.result[f"{stream}_sha256"] == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, CAP - 1, CAP, CAP + 1, 50_000_000])
def test_every_size_arrives_as_its_exact_tail(plane, agent_process, size):
    agent_process.start()
    job = plane.finished(plane.queue({"apply": writer(size)}), 90)
    assert (job.status, job.result["exit_code"]) == ("SUCCEEDED", 0)
    arrived(plane, job, "stdout", pattern(size))
    arrived(plane, job, "stderr", b"")


def test_no_size_changes_an_exit_code(plane, agent_process):
    agent_process.start()
    job = plane.finished(plane.queue({"apply": f"{writer(CAP + 5)}; {writer(CAP + 7, 'stderr')}; return 23"}), 90)
    assert (job.status, job.result["reason"], job.result["exit_code"]) == ("FAILED", "exit", 23)
    arrived(plane, job, "stdout", pattern(CAP + 5))
    arrived(plane, job, "stderr", pattern(CAP + 7))


def test_a_hundred_thousand_empty_lines(plane, agent_process):
    agent_process.start()
    job = plane.finished(plane.queue({"apply": "yes '' | head -n 100000"}), 60)
    assert job.result["exit_code"] in (0, 141)  # pipefail: `yes` may die of the closed pipe
    arrived(plane, job, "stdout", b"\n" * 100_000)


def test_two_streams_in_turn_keep_their_own_bytes(plane, agent_process):
    agent_process.start()
    job = plane.queue({"apply": "for n in $(seq 3000); do echo out $n; echo err $n >&2; done"})
    plane.finished(job, 60)
    for stream, word in (("stdout", "out"), ("stderr", "err")):
        arrived(plane, job, stream, "".join(f"{word} {n}\n" for n in range(1, 3001)).encode())


def test_text_that_is_none_and_characters_in_pieces(plane, agent_process, tmp_path):
    data = random.Random(11).randbytes(200_000) + "🙂é".encode() * 70_000 + b"\xc3\x28\xed\xa0\x80\xf8"
    (tmp_path / "data").write_bytes(data)
    agent_process.start()
    job = plane.finished(plane.queue({"apply": f"dd if={tmp_path}/data bs=4093 status=none"}), 60)
    arrived(plane, job, "stdout", data)


def test_what_a_script_complains_of_does_not_wait_for_its_flood(plane, agent_process):
    agent_process.start()
    job = plane.queue(
        {"apply": "echo complaint >&2; for n in $(seq 60); do head -c 2000000 /dev/zero; sleep 0.05; done"}
    )
    plane.wait(lambda: job.streams["stderr"].total, 30)
    assert job.status == "RUNNING"
    plane.finished(job, 60)
    arrived(plane, job, "stderr", b"complaint\n")
