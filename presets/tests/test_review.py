"""What is said about the text of a document, and where."""

from __future__ import annotations

import json

import pytest

from presets.review import Review, review
from presets.tests.helpers import document

GOOD = """\
name: sample
title: A sample
description: For tests.
category: tests
risk: confirm
variables:
  - name: TEXT
    type: string
    required: true
check: |
  [[ -e /srv/x ]]
apply: |

  # a comment
  echo $TEXT
  (( TEXT ))
verify: "[[ -e $TEXT ]]"
rollback: |
    rm /srv/x
"""


def places(found: Review) -> list[tuple[str, int, int]]:
    return [(each.finding.code, each.line, each.column) for each in found.remarks if each.finding.severity == "error"]


def test_a_place_in_a_part_is_a_place_in_the_document() -> None:
    found = review(GOOD, with_tools=False)
    assert places(found) == [("unquoted", 15, 8), ("arithmetic", 16, 6)]
    assert [each.where for each in found.errors] == ["apply, line 3, column 6", "apply, line 4, column 4"]


def test_a_part_that_is_no_block_is_placed_at_its_key() -> None:
    found = review(GOOD.replace('"[[ -e $TEXT ]]"', '"rm $TEXT"'), with_tools=False)
    assert places(found)[-1] == ("unquoted", 17, 1)


def test_a_wrong_key_is_placed_where_it_stands() -> None:
    found = review(GOOD.replace("type: string", "type: strange").replace("risk: confirm", "risk: none"))
    assert found.preset is None
    assert [(each.finding.part, each.line, each.column) for each in found.errors] == [
        ("risk", 5, 1),
        ("variables[0].type", 8, 5),
    ]


def test_text_that_is_no_yaml_is_placed_too() -> None:
    (remark,) = review("name: [a\ntitle: x\n").errors
    assert (remark.finding.code, remark.line) == ("document", 2)


def test_bytes_that_are_not_utf8_are_refused() -> None:
    (remark,) = review(b"name: \xff").errors
    assert "UTF-8" in remark.sentence


def test_windows_line_ends_are_converted_and_shown() -> None:
    found = review(GOOD.replace("\n", "\r\n"), with_tools=False)
    assert found.text == GOOD
    assert found.preset is not None and "\r" not in found.preset.apply
    (remark,) = [each for each in found.remarks if each.finding.code == "crlf"]
    assert "19 Windows line ends" in remark.sentence


def test_missing_parts_are_pointed_out() -> None:
    found = review(json.dumps(document(risk="confirm")), kind="json", with_tools=False)
    assert {each.finding.code for each in found.remarks} == {"no-check", "no-verify", "no-rollback"}
    assert found.errors == []


def test_a_report_misses_nothing() -> None:
    assert review(json.dumps(document()), kind="json", with_tools=False).remarks == ()


@pytest.mark.parametrize(("text", "code"), [("if true; then\n", "syntax"), ("} ; evil() {\n", "structure")])
def test_what_is_no_bash_cannot_be_waived(text: str, code: str) -> None:
    found = review(json.dumps(document(apply=text)), kind="json")
    assert code in {each.finding.code for each in found.errors_but(waived=True)}


def test_what_is_only_dangerous_can_be_waived() -> None:
    found = review(GOOD, with_tools=False)
    assert found.errors and not found.errors_but(waived=True)


def test_an_answer_names_line_and_column() -> None:
    assert review(GOOD, with_tools=False).fields["apply"][0].startswith("Line 3, column 6: TEXT is unquoted")
