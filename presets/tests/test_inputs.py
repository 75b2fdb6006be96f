"""A preset's variables as a form."""

from __future__ import annotations

from presets import documents, inputs
from presets.documents import Preset

PRESET = documents.load_yaml(
    """
name: sample
title: Sample
description: For these tests.
category: web
risk: confirm
variables:
  - {name: SERVER, type: hostname, required: true}
  - {name: PORT, type: port, default: 80, min: 1, max: 1024}
  - {name: KEEP, type: duration, default: 1h}
  - {name: QUIET, type: bool, default: true}
  - {name: LEVEL, type: enum, choices: [low, high], default: low}
  - {name: TOKEN, type: secret_ref}
apply: |
  echo "$SERVER:$PORT"
verify: "true"
"""
)


def sent(**values: str) -> dict[str, str]:
    return {"sent": "1", "SERVER": "example.org", "PORT": "80", "KEEP": "1h", "LEVEL": "low", **values}


def preview(data: dict[str, str], preset: Preset = PRESET) -> inputs.Preview:
    return inputs.preview(preset, inputs.read_values(preset, data))


def test_a_fresh_form_has_the_defaults_and_complains_of_nothing() -> None:
    shown = inputs.preview(PRESET, inputs.read_values(PRESET, {}), is_untouched=True)
    assert shown.values == {"SERVER": "", "PORT": "80", "KEEP": "1h", "QUIET": "true", "LEVEL": "low", "TOKEN": ""}
    assert shown.is_valid and not shown.sha256 and not shown.bad_lines


def test_an_unticked_box_is_false() -> None:
    assert preview(sent()).values["QUIET"] == "false"
    assert preview(sent(QUIET="true")).values["QUIET"] == "true"


def test_good_values_give_the_script_that_would_run() -> None:
    shown = preview(sent(KEEP="90m"))
    assert shown.is_valid and len(shown.sha256) == 64
    assert "readonly KEEP='5400'\n" in shown.script
    assert [part for part, _ in shown.parts] == ["apply", "verify"]
    assert shown.script.split("\n")[shown.parts[0][1] - 1] == "hb_apply() {"


def test_each_bad_value_has_its_sentence_and_its_line() -> None:
    shown = preview(sent(SERVER="not a host", PORT="70000"))
    assert {item.name for item in shown.inputs if item.errors} == {"SERVER", "PORT"}
    lines = shown.script.split("\n")
    assert [lines[number - 1] for number in shown.bad_lines] == [
        "readonly SERVER='not a host'",
        "readonly PORT='70000'",
    ]
    assert "readonly KEEP='3600'" in lines and shown.error_count == 2 and not shown.sha256


def test_a_typed_secret_is_refused_and_stands_nowhere() -> None:
    shown = preview(sent(TOKEN="hunter2-password"))
    [item] = [item for item in shown.inputs if item.errors]
    assert item.name == "TOKEN" and "hunter2" not in shown.script and "hunter2" not in "".join(item.errors)


def test_a_quote_cannot_leave_its_word() -> None:
    assert "readonly SERVER='a'\\''; rm -rf /'" in preview(sent(SERVER="a'; rm -rf /")).script


def test_limits_are_told_in_words() -> None:
    limits = {item.name: item.limits for item in preview(sent()).inputs}
    assert limits["PORT"] == "1 to 1024." and limits["SERVER"] == ""
