"""`hyprbox login` and `hyprbox logout`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from agent.cli import logins, printing
from agent.cli.addresses import DEFAULT_URL, check_url
from agent.cli.api import Api
from agent.cli.base import command, current, is_tty
from agent.cli.exits import LoginNeeded, Trouble, UsageTrouble
from agent.cli.masking import no_interruption


@command("login", short_help="Log in and save the login.")
@click.argument("address", metavar="[URL]", required=False)
@click.option("--email", help="Your e-mail address; asked for without it.")
@click.option("--otp", is_flag=True, help="Ask for the one-time code at once, before the server does.")
def login(address: str | None, email: str | None, otp: bool) -> None:
    """Log in at the control plane at URL and save the login.

    The password is asked for, or is the first line of stdin when that is not a terminal; a one-time code is then the
    second line. It is never an argument, where others could read it.
    """
    settings = current()
    saved = logins.find() if not (address or settings.url or os.environ.get("HYPRBOX_API_URL")) else None
    named = address or settings.url or os.environ.get("HYPRBOX_API_URL", "")
    settings.url = check_url(named or (saved.url if saved else DEFAULT_URL))
    api = Api(settings)
    if not email:
        if not is_tty(sys.stdin):
            raise UsageTrouble("Name the account with --email: stdin is for the password.")
        email = click.prompt("E-mail", default=saved.email if saved else None, err=True)
    body = {"email": email, "password": _secret("Password")}
    if otp:
        body["otp"] = _secret("One-time code")
    with no_interruption():
        answer = _log_in(api, body)
        pair = logins.Login(
            api.url, answer["user"]["email"], answer["access"], answer["refresh"], logins.access_until(answer["access"])
        )
        with logins.locked():
            logins.save(pair)
    user = answer["user"]
    if settings.as_json:
        printing.as_json({"url": api.url, "user": user})
    else:
        printing.say(f"Logged in at {api.url} as {user['email']} ({user['role']}).")


def _log_in(api: Api, body: dict[str, str]) -> Any:
    if "otp" in body:
        return _log_in_with_code(api, body)
    try:
        return api.call("POST", "/api/auth/login", public=True, json=body).json()
    except Trouble as error:
        if not _may_want_second_factor(error):
            raise
        code = _code_if_any()
        if not code:
            raise
    return _log_in_with_code(api, {**body, "otp": code})


def _log_in_with_code(api: Api, body: dict[str, str]) -> Any:
    """A server that does not tell what was wrong speaks of the other two only."""
    try:
        return api.call("POST", "/api/auth/login", public=True, json=body).json()
    except Trouble as error:
        if error.code != "wrong_credentials":
            raise
        words = "The e-mail address, the password or the one-time code is not right. A code works only once."
        raise Trouble(words, code=error.code, exit_code=error.exit_code) from None


def _may_want_second_factor(error: Trouble) -> bool:
    """A server that does not tell what was wrong may have missed the code: to strangers both look the same."""
    words = (error.code, *error.fields, *error.detail)
    return error.code == "wrong_credentials" or any("otp" in word or "factor" in word for word in words)


def _code_if_any() -> str:
    if is_tty(sys.stdin):
        question = "One-time code, if the account has one"
        return str(click.prompt(question, hide_input=True, default="", show_default=False, err=True)).strip()
    return sys.stdin.readline().strip()


def _secret(what: str) -> str:
    if is_tty(sys.stdin):
        value: str = click.prompt(what, hide_input=True, err=True)
        return value.strip() if what != "Password" else value
    line = sys.stdin.readline()
    if not line.rstrip("\n"):
        raise UsageTrouble(f"{what} is missing: write it to stdin, on a line of its own.")
    return line.rstrip("\r\n")


@command("logout", short_help="End the saved login.")
@click.option("--everywhere", is_flag=True, help="End all your logins, in browsers and other programs too.")
def logout(everywhere: bool) -> None:
    """End the saved login, here and on the server."""
    settings = current()
    named = settings.url or os.environ.get("HYPRBOX_API_URL", "")
    with logins.locked():
        found = logins.find(check_url(named) if named else "")
        if found is None:
            raise LoginNeeded("There is no saved login to end.")
    trouble = _tell_server(found.url, everywhere)
    with logins.locked():
        logins.forget(found.url)
    if trouble is not None:
        raise Trouble(
            f"The login is forgotten here, but the server could not be told: {trouble}",
            code=trouble.code,
            exit_code=trouble.exit_code,
        )
    if settings.as_json:
        printing.as_json({"url": found.url, "everywhere": everywhere})
    else:
        printing.say(f"Logged out of {found.url}.")


def _tell_server(url: str, everywhere: bool) -> Trouble | None:
    """None when the server has ended the login, or had ended it before."""
    settings = current()
    settings.url, settings.token_file = url, ""
    os.environ.pop("HYPRBOX_API_TOKEN", None)  # this is about the saved login
    try:
        api = Api(settings)
        api.token()
        saved = logins.find(url)
        refresh = saved.refresh if saved else ""
        api.post("/api/auth/logout", {"everywhere": True} if everywhere else {"refresh": refresh})
    except LoginNeeded:
        return None
    except Trouble as error:
        return error
    return None


COMMANDS = {"login": login, "logout": logout}
