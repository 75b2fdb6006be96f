"""The rendered script: what is in it, and how it behaves in bash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from presets import rendering
from presets.params import InvalidVariables
from presets.tests.helpers import ENVIRONMENT, make_preset, run, run_preset

SECRET = [{"name": "DB_PASSWORD", "type": "secret_ref", "required": True}]


def test_the_script_is_header_preamble_functions_and_case() -> None:
    preset = make_preset(variables=[{"name": "WHO", "type": "string"}], apply='echo "$WHO"\n', check="false\n")
    rendered = rendering.render(preset, {"WHO": "it's"})
    assert rendered.text == (
        "#!/usr/bin/env bash\n"
        "# A sample\n"
        f"# Preset sample, revision {preset.revision[:12]}\n"
        "# One part by hand: bash SCRIPT check|apply\n"
        "\n"
        "set -euo pipefail\n"
        "\n"
        "readonly WHO='it'\\''s'\n"
        "\n"
        "hb_check() {\nfalse\n}\n"
        "\n"
        'hb_apply() {\necho "$WHO"\n}\n'
        "\n"
        'case "${1:-}" in\n'
        "  check) hb_check ;;\n"
        "  apply) hb_apply ;;\n"
        "  *)\n"
        "    printf 'usage: bash %s check|apply\\n' \"$0\" >&2\n"
        "    exit 64\n"
        "    ;;\n"
        "esac\n"
    )
    assert rendered.sha256 == hashlib.sha256(rendered.script).hexdigest()
    assert rendered.revision == preset.revision
    assert rendered.parts == ("check", "apply")
    assert rendered.variables == {"WHO": "it's"}


def test_rendering_twice_gives_the_same_bytes() -> None:
    preset = make_preset(variables=[{"name": "A", "type": "string"}, {"name": "B", "type": "string"}])
    assert rendering.render(preset, {"A": "1", "B": "2"}) == rendering.render(preset, {"B": "2", "A": "1"})


@pytest.mark.parametrize(
    "text",
    ["echo hi", "echo hi # a comment", "cat <<'EOF'\nhi\nEOF", "echo hi\n\n", "(exit 0); echo hi &\nwait"],
)
def test_a_parts_text_stands_unchanged_and_runs_whatever_it_ends_with(tmp_path: Path, text: str) -> None:
    assert text in rendering.render(make_preset(apply=text), {}).text
    assert run_preset(tmp_path, "apply", apply=text).stdout == b"hi\n"


@pytest.mark.parametrize("arguments", [[], ["aply"], ["verify"], [""], ["--help"]])
def test_no_phase_an_unknown_phase_and_an_absent_part_print_usage_and_exit_64(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = run(tmp_path, rendering.render(make_preset(apply="echo ran\n"), {}).script, *arguments)
    assert (done.returncode, done.stdout) == (64, b"")
    assert done.stderr.endswith(b"script.sh apply\n")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("true", 0),
        ("test -e /nowhere", 1),
        ("false\necho not reached", 1),
        ("(exit 7)\necho not reached", 7),
        ("return 3", 3),
        ("exit 69", 69),
        ("false | true\necho not reached", 1),
        ('echo "$UNSET_NAME"\necho not reached', 1),
        ("inner() {\n  false\n  echo not reached\n}\ninner", 1),
    ],
)
def test_errexit_nounset_and_pipefail_hold_inside_parts(tmp_path: Path, text: str, code: int) -> None:
    done = run_preset(tmp_path, "check", check=text)
    assert (done.returncode, done.stdout) == (code, b"")


def test_a_variable_cannot_be_overwritten_by_a_part(tmp_path: Path) -> None:
    variables = [{"name": "WHO", "type": "string", "default": "x"}]
    done = run_preset(tmp_path, "apply", variables=variables, apply="WHO=y\necho not reached\n")
    assert done.returncode != 0
    assert done.stdout == b""


def test_a_script_that_reads_stdin_finds_it_empty_and_keeps_its_own_text(tmp_path: Path) -> None:
    assert run_preset(tmp_path, "apply", apply="cat\necho done\n").stdout == b"done\n"


def test_a_script_of_two_hundred_kilobytes_runs(tmp_path: Path) -> None:
    body = ": " + "x" * 199_000 + "\necho done\n"
    assert run_preset(tmp_path, "apply", apply=body).stdout == b"done\n"


def test_a_script_over_one_mebibyte_is_refused() -> None:
    variables = [{"name": f"V{number}", "type": "string"} for number in range(17)]
    with pytest.raises(InvalidVariables) as caught:
        rendering.render(make_preset(variables=variables), {f"V{number}": "x" * 65_000 for number in range(17)})
    assert caught.value.fields["variables"][0].endswith("1,048,576 are allowed.")


def test_a_secret_is_never_rendered_and_comes_from_the_environment_without_travelling_on(tmp_path: Path) -> None:
    preset = make_preset(variables=SECRET, apply='echo "$DB_PASSWORD"\nbash -c \'echo "${DB_PASSWORD-gone}"\'\n')
    rendered = rendering.render(preset, {"DB_PASSWORD": "env:HYPRBOX_SECRET_DB"})
    assert rendered.secrets == {"DB_PASSWORD": "env:HYPRBOX_SECRET_DB"}
    assert rendered.variables == {}
    assert "HYPRBOX_SECRET" not in rendered.text
    done = run(tmp_path, rendered.script, "apply", env={**ENVIRONMENT, "DB_PASSWORD": "it's $(secret)"})
    assert done.stdout == b"it's $(secret)\ngone\n"


def test_a_secret_that_was_not_given_is_empty(tmp_path: Path) -> None:
    preset = make_preset(variables=[{**SECRET[0], "required": False}], apply='echo "[$DB_PASSWORD]"\n')
    rendered = rendering.render(preset, {})
    assert rendered.secrets == {}
    assert run(tmp_path, rendered.script, "apply").stdout == b"[]\n"


@pytest.mark.parametrize(
    ("value", "words"),
    [("\u202eabc", "does not show"), ("a\rb", "does not show"), (" a", "white space"), ("a\n", "white space")],
)
def test_values_that_are_not_what_they_look_like_are_warned_about(value: str, words: str) -> None:
    warnings = rendering.render(make_preset(variables=[{"name": "A", "type": "string"}]), {"A": value}).warnings
    assert len(warnings) == 1
    assert words in warnings[0]


def test_windows_line_ends_are_converted_with_a_warning(tmp_path: Path) -> None:
    rendered = rendering.render(make_preset(apply="echo a\r\necho b\r\n"), {})
    assert rendered.warnings == ("apply: 2 Windows line ends (CRLF) were converted to LF.",)
    assert run(tmp_path, rendered.script, "apply").stdout == b"a\nb\n"
