"""What the lint finds in a part, where, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presets import lint, shelltools
from presets.documents import Preset
from presets.shell import scan
from presets.tests.helpers import make_preset

VARIABLES: list[dict[str, Any]] = [
    {"name": "TEXT", "type": "string", "required": True},
    {"name": "PORT", "type": "port", "required": True},
    {"name": "WAIT", "type": "duration", "required": True},
    {"name": "HOST", "type": "hostname", "required": True},
    {"name": "SOME", "type": "hostname"},
    {"name": "FOLDER", "type": "path", "required": True},
    {"name": "FLAG", "type": "bool", "required": True},
    {"name": "COLOUR", "type": "enum", "choices": ["red", "blue"], "required": True},
    {"name": "WORDS", "type": "enum", "choices": ["one two"], "required": True},
    {"name": "SECRET", "type": "secret_ref", "required": True},
]
USE_ALL = 'echo "$TEXT $PORT $WAIT $HOST $SOME $FOLDER $FLAG $COLOUR $WORDS"; : "$SECRET"\n'


def found(text: str, **over: Any) -> list[tuple[int, int, str, str]]:
    """(line, column, severity, code) of what is found in an apply part."""
    preset = make_preset(variables=VARIABLES, apply=text, rollback=USE_ALL, **over)
    return [(each.line, each.column, each.severity, each.code) for each in lint.lint(preset) if each.part != "rollback"]


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        # Arithmetic evaluates what a value says.
        ("(( TEXT > 1 ))", (1, 4), "arithmetic"),
        ("(( $TEXT > 1 ))", (1, 4), "arithmetic"),
        ("echo $((TEXT + 1))", (1, 9), "arithmetic"),
        ('echo "$(( ${HOST} ))"', (1, 11), "arithmetic"),
        ("echo $[TEXT]", (1, 8), "arithmetic"),
        ('[[ "$TEXT" -gt 0 ]]', (1, 5), "arithmetic"),
        ("[[ 0 -eq $HOST ]]", (1, 10), "arithmetic"),
        ("[[ -v $TEXT ]]", (1, 7), "arithmetic"),
        ('echo "${PATH:TEXT:1}"', (1, 14), "arithmetic"),
        ("echo ${list[$TEXT]}", (1, 13), "arithmetic"),
        ("list[TEXT]=1", (1, 6), "arithmetic"),
        ("for ((i = 0; i < TEXT; i++)); do :; done", (1, 18), "arithmetic"),
        ("echo ${!TEXT}", (1, 6), "arithmetic"),
        ("(( FLAG ))", (1, 4), "arithmetic"),
        # Code again.
        ('eval "echo $TEXT"', (1, 12), "eval"),
        ('eval echo "$HOST"', (1, 12), "eval"),
        ('trap "rm $FOLDER" EXIT', (1, 10), "eval"),
        ('source "$FOLDER/x"', (1, 9), "eval"),
        ('. "$FOLDER"', (1, 4), "eval"),
        ("let x=TEXT", None, None),
        ('bash -c "echo $TEXT"', (1, 15), "eval"),
        ('sh -ec "echo $TEXT"', (1, 14), "eval"),
        ('timeout 5 /bin/sh -c "echo $HOST"', (1, 28), "eval"),
        ('find / -exec sh -c "rm $TEXT" \\;', (1, 24), "eval"),
        ('su user -c "echo $TEXT"', (1, 18), "eval"),
        ('ssh host "ls $FOLDER"', (1, 14), "eval"),
        ('read -r "$TEXT"', (1, 10), "name"),
        ('printf -v "$TEXT" x', (1, 12), "name"),
        ('declare "$TEXT=1"', (1, 10), "name"),
        ('unset "$HOST"', (1, 8), "name"),
        ('[ -v "$TEXT" ]', (1, 7), "name"),
        ('"$TEXT" --help', (1, 2), "command"),
        # Unquoted.
        ("echo $TEXT", (1, 6), "unquoted"),
        ("echo a${TEXT}b", (1, 7), "unquoted"),
        ("echo $SOME", (1, 6), "unquoted"),
        ("rm -rf $FOLDER/*", (1, 8), "unquoted"),
        ("echo $WORDS", (1, 6), "unquoted"),
        ("echo x >$FOLDER", (1, 9), "unquoted"),
        ("for x in $TEXT; do :; done", (1, 10), "unquoted"),
        ("echo ${TEXT:-x}", (1, 6), "unquoted"),
        ("echo ${PATH:-$TEXT}", (1, 14), "unquoted"),
        ("list=(a $TEXT)", (1, 9), "unquoted"),
        ("[[ a == $TEXT ]]", (1, 9), "unquoted"),
        ("[[ a =~ ^($TEXT)$ ]]", (1, 11), "unquoted"),
        ("case x in $TEXT) ;; esac", (1, 11), "unquoted"),
        ("echo ${PATH#$TEXT}", (1, 13), "unquoted"),
        ("true\n\techo a \\\n  $TEXT", (3, 3), "unquoted"),
        ('echo "$(ls $TEXT)"', (1, 12), "unquoted"),
        ("cat <<EOF\n$(ls $TEXT)\nEOF", (2, 6), "unquoted"),
        # Copies.
        ("copy=$TEXT\n(( copy ))", (2, 4), "arithmetic"),
        ('copy=$TEXT\nagain="x$copy"\necho $again', (3, 6), "unquoted"),
        ('local copy="$TEXT"\neval "$copy"', (2, 7), "eval"),
        ('for copy in "$TEXT"; do echo $copy; done', (1, 30), "unquoted"),
        # The rest.
        ("echo `ls $TEXT`", (1, 10), "backtick"),
        ("echo {{ TEXT }}", (1, 6), "template"),
        ("cat <<EOF\n{{text}}\nEOF", (2, 1), "template"),
        ("# {{TEXT}}", (1, 3), "template"),
        ("TEXT=x", (1, 1), "readonly"),
        ("read -r TEXT", (1, 9), "readonly"),
        ("for PORT in 1 2; do :; done", (1, 5), "readonly"),
        ("local HOST=x", (1, 7), "readonly"),
        ('echo "$NOWHERE"', (1, 7), "undeclared"),
        ("(( NOWHERE ))", (1, 4), "undeclared"),
        ("set -x", (1, 1), "trace"),
        ("set -euxo pipefail", (1, 1), "trace"),
        ("set -o xtrace", (1, 1), "trace"),
        ("hb_verify", (1, 1), "part"),
        # Structure.
        ("}\nid\nother() {", (1, 1), "structure"),
        ("echo 'open", (1, 6), "structure"),
        ('echo "open', (1, 6), "structure"),
        ("echo $(ls", (1, 6), "structure"),
        ("echo ${PATH", (1, 6), "structure"),
        ("if true; then", (1, 1), "structure"),
        ("cat <<EOF\nx\n", (1, 5), "structure"),
        ("cat <<EOF\nx\n EOF\n", (1, 5), "structure"),
        ("done", (1, 1), "structure"),
        ("echo )", (1, 6), "structure"),
    ],
)
def test_a_wrong_place_is_an_error_with_line_and_column(
    text: str, place: tuple[int, int] | None, code: str | None
) -> None:
    errors = [(line, column, what) for line, column, severity, what in found(text) if severity == lint.ERROR]
    if place is None:
        assert errors == []
    else:
        assert (*place, code) in errors, errors


@pytest.mark.parametrize(
    "text",
    [
        'echo "$TEXT" "${TEXT}" "a $TEXT b" "${TEXT:-x}" "${#TEXT}" "${TEXT%x}"',
        "copy=$TEXT; copy+=$TEXT; local other=$TEXT",
        'case $TEXT in "$HOST") ;; a*) ;; esac',
        '[[ $TEXT == a* && -n $TEXT && "$TEXT" == "$HOST" ]]',
        '[[ $COLOUR == red ]] || [ "$TEXT" -gt 3 ]',
        "echo $((PORT + WAIT)); (( PORT > 1024 )); [[ $PORT -gt 3 ]]",
        "sleep $((WAIT / 2)); eval \"echo $PORT\"",
        "cat <<EOF\n$TEXT and \\$HOME $(echo \"$TEXT\")\nEOF",
        "cat <<'EOF'\n$uri ${x} `y` $(z)\nEOF",
        'cat <<< $TEXT >"$FOLDER/x"',
        'bash -c \'echo "$1"\' -- "$TEXT"',
        'awk -v text="$TEXT" \'{ print $1, text }\' <<<x',
        'sed -e "s/x/$PORT/" file; sed -n \'1p\' "$FOLDER"',
        'ssh "$HOST" uptime; read -r line <<<"$TEXT"; echo "$line"',
        "NAME=x; export OTHER=y; echo \"$NAME$OTHER\"; mapfile -t ROWS <file; echo \"${ROWS[@]}\"",
        "for ITEM in a b; do echo \"$ITEM\"; done; echo \"${MAYBE:-}${MAYBE-}${MAYBE+x}\" \"$HOME$EUID$RANDOM\"",
        "# a comment with $TEXT, it's fine: `ls` (( }",
        "x=$( (echo a; echo b) | sort); ((1 + (2))) && (true); (echo 1; (echo 2))",
        "f() { local a=${1:-}; echo \"$a\"; }; function g { true; }; f \"$TEXT\"",
        "docker ps --format '{{.Names}}'",
        "echo a#b \"#\" ${#list[@]} $# \\# x; if ! true; then :; elif false; then :; else :; fi",
        "case x in (a|b) echo ')';; *) case y in z) ;; esac ;; esac",
        "set -e; hb_rollback",
    ],
)  # fmt: skip
def test_right_places_are_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("echo $HOST", (1, 6), "unquoted"),
        ("kill -9 $PORT", (1, 9), "unquoted"),
        ("echo $COLOUR $FLAG", (1, 6), "unquoted"),
        ("echo '$TEXT'", (1, 7), "not-expanded"),
        ("cat <<'EOF'\n\n x $TEXT\nEOF", (3, 4), "not-expanded"),
        ('awk "/$TEXT/ { print }" file', (1, 7), "code"),
        ('sed -i "s/a/$TEXT/" file', (1, 13), "code"),
        ('sed -n -e p -e "/$HOST/d" file', (1, 18), "code"),
        ("psql -U x -c \"select '$TEXT'\"", (1, 23), "code"),
    ],
)
def test_a_careless_place_is_a_warning(text: str, place: tuple[int, int], code: str) -> None:
    assert (*place, lint.WARNING, code) in found(text)


def test_a_variable_that_no_part_uses_is_a_warning() -> None:
    preset = make_preset(variables=[VARIABLES[0]])
    (finding,) = lint.lint(preset)
    assert (finding.part, finding.code, finding.severity) == ("", "unused", lint.WARNING)
    assert "TEXT" in finding.message


def test_findings_stand_in_the_order_of_the_script() -> None:
    preset = make_preset(variables=VARIABLES[:1], check="echo $TEXT\n", apply="\necho $TEXT\necho $TEXT\n")
    assert [(each.part, each.line) for each in lint.lint(preset)] == [("check", 1), ("apply", 2), ("apply", 3)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("}\nid\nother() {\n", 1),
        ("echo ok\nfi\n", 2),
        ("cat <<EOF\nnever ends\n", 1),
        ("echo last \\", 1),
        ("# only a comment\n", 1),
        ("echo 'open\n", 1),
    ],
)
def test_bash_itself_refuses_what_does_not_fit_into_a_function(text: str, line: int) -> None:
    findings = shelltools.bash_syntax(make_preset(apply=text))
    assert findings, text
    assert {(each.part, each.severity, each.code) for each in findings} == {("apply", lint.ERROR, "syntax")}
    assert min(each.line for each in findings) >= line


def test_bash_has_nothing_against_a_good_part() -> None:
    assert shelltools.bash_syntax(make_preset(apply=USE_ALL, variables=VARIABLES)) == ()


def test_a_tool_that_takes_too_long_is_a_finding_and_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(preset: Preset) -> tuple[lint.Finding, ...]:
        raise subprocess.TimeoutExpired("shellcheck", 30)

    slow.__name__ = "shellcheck"
    monkeypatch.setattr(shelltools, "shellcheck", slow)
    [finding] = [each for each in shelltools.check(make_preset(apply="true\n")) if each.severity == lint.ERROR]
    assert (finding.code, finding.message) == (
        "too-long", "shellcheck did not end within 30 seconds, so it found nothing."
    )  # fmt: skip


def test_shellcheck_places_are_those_of_the_part() -> None:
    preset = make_preset(check="true\n", apply="true\n\n  unused=1\n")
    try:
        (finding,) = shelltools.shellcheck(preset)
    except shelltools.ToolMissing:
        pytest.skip("ShellCheck is not installed")
    assert (finding.part, finding.line, finding.column, finding.code) == ("apply", 3, 3, "SC2034")


def test_a_word_that_only_begins_like_the_end_of_a_case() -> None:
    assert scan("case a in\n esac'x') true ;;\nesac\n").problems == []


BASH = st.lists(
    st.sampled_from(
        ["'", '"', "`", "$", "$(", "${", "$((", "((", "))", ")", "(", "}", "{", " ", "\n", "\\", "<<", "EOF", "[[", "]]", "#",
         "case ", " in ", "esac", "if ", "fi", "for ", "do ", "done", ";", ";;", "|", "&", "x", "X=", "$X", "=~", "-eq", "<(", "!", "[", "]"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(BASH | st.text(max_size=60))
def test_any_text_is_scanned_to_its_end(text: str) -> None:
    result = scan(text)
    for use in result.uses:
        assert text[use.offset :].lstrip("${!#").startswith(use.name)
    for problem in result.problems:
        assert 0 <= problem.offset <= len(text)


def calls_of(text: str) -> int:
    """How many functions a scan calls; what one call of a pattern costs is for tests/test_own_patterns.py."""
    counted = 0

    def count(_frame: FrameType, event: str, _: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        scan(text)
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [("$(", "", 5000), ("((", "", 5000), ("${a:-", "", 5000), ('"$(', "", 3000), ("{ ", "", 20_000), ("a", "", 100_000),
     ("'a' ", "", 20_000), ("$((", "))", 300), ("cat <<E\n", "", 2000), ("((a", ") )", 2000), ("case x in ", "", 3000), ("`", "", 20_001)],
)  # fmt: skip
def test_hostile_text_of_twice_the_length_takes_at_most_twice_the_work(begin: str, end: str, count: int) -> None:
    half, whole = (calls_of(begin * size + "x" + end * size) for size in (count // 2, count))
    assert 0 < whole <= 2.1 * half + 100
