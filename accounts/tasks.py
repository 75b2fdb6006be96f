"""What the worker does for people: letters that take time, and clearing away what is over."""

from __future__ import annotations

from procrastinate.contrib.django import app

from accounts import mails, passwords, rates, tidying
from accounts.models import User
from hyprbox.lib.actors import Actor


@app.task(pass_context=False)
def send_reset(email: str, ip: str) -> None:
    """Looks for the account only here, so that the request takes as long for an address that nobody has."""
    if issued := passwords.issue_reset(email=email, by=Actor.anonymous(ip=ip)):
        mails.send_reset(*issued)


@app.task(pass_context=False)
def tell_password_changed(user_id: str) -> None:
    if user := User.objects.filter(pk=user_id).first():
        mails.send_password_changed(user)


@app.task(pass_context=False)
def tell_email_changed(user_id: str, before: str) -> None:
    if user := User.objects.filter(pk=user_id).first():
        mails.send_email_changed(user, before)


@app.task(pass_context=False)
def tell_refresh_reused(user_id: str, ip: str) -> None:
    if user := User.objects.filter(pk=user_id).first():
        mails.send_refresh_reused(user, ip)


@app.periodic(cron="23 * * * *")
@app.task(queueing_lock="accounts.tidy", pass_context=False)
def tidy(timestamp: int) -> None:
    tidying.forget_old()
    rates.forget_old()
