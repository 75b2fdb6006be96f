"""What is taken for a secret in a variable that is stored, and what is not."""

from __future__ import annotations

import pytest

from presets import catalogue, leaks, lint, rendering
from presets.params import Variable
from presets.tests.helpers import make_preset

# Put together here, so that nothing in this file looks like a leaked one.
AWS, GITHUB, HYPRBOX = "AKIA" + "Q7" * 8, "ghp_" + "a1B2" * 9, "hbnt_" + "x" * 51


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (AWS, "an AWS access key"),
        (f"key={GITHUB};", "a GitHub token"),
        (HYPRBOX, "a token of HyprBox"),
        ("-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc", "a private key"),
        ("postgres://app:" + "hunter2" + "@db.example/shop", "an address with a password"),
        ("rest:https://u:" + "hunter2" + "@backup.example/", "an address with a password"),
        ("password" + " = hunter22", "a setting with a password"),
        ("eyJhbGciOiJI" + ".eyJzdWIiOiIx" + ".sig", "a signed web token"),
        ("https://example.org:8443/path@2", None),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample ada@laptop", None),
        ("password rules are on the wiki", None),
        ("", None),
    ],
)
def test_what_only_a_secret_looks_like(value: str, kind: str | None) -> None:
    assert leaks.looks_like(Variable("TEXT", "string"), value) == kind


@pytest.mark.parametrize(
    ("name", "type", "is_one"),
    [
        ("DB_PASSWORD", "string", True), ("TOKEN", "identifier", True), ("API_KEY", "string", True), ("APIKEY", "string", True),
        ("PASSWORDS", "bool", False), ("TOKEN_COUNT", "int", False), ("PUBLIC_KEY", "string", False), ("PASSWORD_FILE", "path", False),
        ("PASSWORD", "secret_ref", False), ("COMPASS", "string", False),
    ],
)  # fmt: skip
def test_names_that_promise_a_secret(name: str, type: str, is_one: bool) -> None:
    variable = Variable(name, type)
    assert leaks.is_named_like_one(variable) is is_one
    assert (leaks.looks_like(variable, "anything") is not None) is is_one


def test_a_default_is_no_secret_of_anybody() -> None:
    assert leaks.looks_like(Variable("PASSWORD", "string", default="none"), "none") is None


def test_the_value_itself_is_not_in_the_warning() -> None:
    preset = make_preset(variables=[{"name": "DB_PASSWORD", "type": "string"}], apply=': "$DB_PASSWORD"\n')
    [warning] = rendering.render(preset, {"DB_PASSWORD": "hunter2"}).warnings
    assert warning.startswith("DB_PASSWORD looks like a secret: it would be stored") and "hunter2" not in warning
    assert rendering.render(preset, {}).warnings == ()


def test_the_lint_warns_of_such_a_variable_and_no_built_in_preset_has_one() -> None:
    preset = make_preset(variables=[{"name": "DB_PASSWORD", "type": "string"}], apply=': "$DB_PASSWORD"\n')
    assert [each.code for each in lint.lint(preset)] == ["open-secret"]
    declared = [variable for each in catalogue.builtin().values() for variable in each.variables]
    assert not any(leaks.is_named_like_one(variable) for variable in declared)
