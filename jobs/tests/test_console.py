"""Stored chunks as lines of the job's page, and where the stream goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobs import console
from jobs.models import OutputChunk

START = datetime(2026, 11, 23, 14, 30, tzinfo=UTC)


def chunks(*pieces: tuple[str, str, bytes]) -> list[OutputChunk]:
    """(stream, phase, data) in order of arrival, a second apart."""
    offsets = {"stdout": 0, "stderr": 0}
    made = []
    for number, (stream, phase, data) in enumerate(pieces):
        at = START + timedelta(seconds=number)
        made.append(OutputChunk(stream=stream, offset=offsets[stream], data=data, phase=phase, received_at=at))
        offsets[stream] += len(data)
    return made


def read(*pieces: tuple[str, str, bytes], is_final: bool = False, only: str = "") -> console.Console:
    return console.assemble(chunks(*pieces), first_offsets={}, is_final=is_final, only=only)


def texts(shown: console.Console) -> list[tuple[str, str]]:
    return [(line.kind, "".join(span.text for span in line.spans)) for line in shown.lines]


def test_streams_stand_in_order_of_arrival_with_their_phases() -> None:
    shown = read(("stdout", "check", b"a\n"), ("stderr", "apply", b"b\nc\n"), ("stdout", "apply", b"d\n"))
    assert texts(shown) == [
        ("sys", "phase check"), ("out", "a"), ("sys", "phase apply"), ("err", "b"), ("err", "c"), ("out", "d"),
    ]  # fmt: skip
    assert (shown.total_lines, shown.error_lines, shown.after) == (6, 2, "stdout:4,stderr:4")


def test_an_unfinished_line_is_left_to_the_stream() -> None:
    shown = read(("stdout", "", b"whole\nhal"), ("stderr", "", b"x\n"))
    assert texts(shown) == [("out", "whole"), ("err", "x")]
    assert shown.after == "stdout:6,stderr:2"


def test_a_finished_job_shows_all_of_it() -> None:
    shown = read(("stdout", "", b"whole\nhal"), ("stdout", "", b"f"), is_final=True)
    assert texts(shown) == [("out", "whole"), ("out", "half")]
    assert shown.after == "stdout:10,stderr:0"


def test_a_line_over_two_chunks_has_the_time_of_its_beginning() -> None:
    shown = read(("stdout", "", b"be"), ("stdout", "", b"gun\nnext\n"))
    assert [line.at for line in shown.lines] == [START, START + timedelta(seconds=1)]


def test_a_carriage_return_begins_the_line_anew() -> None:
    assert texts(read(("stdout", "", b"10%\r50%\r100%\nwindows\r\n"))) == [("out", "100%"), ("out", "windows")]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert texts(read(("stdout", "", b"\xff\xfe\x00ok\n"))) == [("out", "\ufffd\ufffdok")]


def test_a_very_long_line_is_cut_and_says_so() -> None:
    [(_, text)] = texts(read(("stdout", "", b"x" * 9000 + b"\n")))
    assert text.endswith("and 1,000 more characters, see the download")


def test_only_the_last_lines_are_kept() -> None:
    shown = read(("stdout", "", b"".join(b"%d\n" % n for n in range(2500))))
    assert shown.is_cut and shown.total_lines == 2500 and len(shown.lines) == 2000
    assert texts(shown)[0] == ("out", "500")


def test_one_stream_alone() -> None:
    pieces = (("stdout", "", b"a\n"), ("stderr", "", b"b\n"))
    assert texts(read(*pieces, only="stderr")) == [("err", "b")]


def test_a_tail_begins_at_its_first_offset() -> None:
    late = OutputChunk(stream="stdout", offset=100, data=b"cut off\nwhole\n", phase="", received_at=START)
    shown = console.assemble([late], first_offsets={"stdout": 104, "stderr": 0}, is_final=False)
    assert texts(shown) == [("out", "off"), ("out", "whole")]
    assert shown.after == "stdout:114,stderr:0"


@given(st.binary(max_size=400), st.lists(st.integers(1, 40), max_size=30))
def test_however_the_bytes_are_cut_the_lines_are_the_same(data: bytes, sizes: list[int]) -> None:
    pieces, rest = [], data
    for size in [*sizes, len(data)]:
        if rest:
            pieces.append(("stdout", "", rest[:size]))
            rest = rest[size:]
    assert texts(read(*pieces, is_final=True)) == texts(read(("stdout", "", data), is_final=True))
