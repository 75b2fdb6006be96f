"""What the OpenAPI document says of /api/auth and /api/users."""

from __future__ import annotations

from rest_framework import serializers

from accounts import account_api, api, people_api
from hyprbox.lib.openapi import ANYONE, Call, Page


class NewKey(account_api.KeySerializer):
    """An API key with its plaintext, this once."""

    key = serializers.CharField()

    class Meta(account_api.KeySerializer.Meta):
        fields = (*account_api.KeySerializer.Meta.fields, "key")  # type: ignore[assignment]


class SentInvitation(people_api.InvitationSerializer):
    """`link` is null when a mail server took the letter."""

    link = serializers.CharField(allow_null=True)

    class Meta(people_api.InvitationSerializer.Meta):
        fields = (*people_api.InvitationSerializer.Meta.fields, "link")  # type: ignore[assignment]


AUTH = {
    "POST /api/auth/login": Call(
        "Log in",
        {200: api.SessionOutput},
        body=api.LoginInput,
        who=ANYONE,
        text="Sets the cookie hb_token too. Unknown, wrong and disabled get the same answer in the same time.",
    ),
    "POST /api/auth/register": Call(
        "Register, where that is open",
        {201: api.SessionOutput},
        body=api.RegisterInput,
        who=ANYONE,
        errors=(409,),
    ),
    "POST /api/auth/refresh": Call(
        "Swap the refresh token for a new pair",
        {200: api.PairOutput},
        body=api.RefreshInput,
        who=ANYONE,
        text="An old refresh token that comes back ends its whole family.",
    ),
    "POST /api/auth/logout": Call("Log out", {204: None}, body=api.LogoutInput, who=ANYONE),
    "POST /api/auth/step-up": Call(
        "Show your second factor again",
        {204: None},
        body=api.StepUpInput,
        errors=(409,),
        text="For five minutes this session may do what is sensitive; without it that is 403 step_up_required.",
    ),
    "GET /api/auth/me": Call("Who you are", {200: api.UserSerializer}),
    "POST /api/auth/password": Call(
        "Change your password",
        {204: None},
        body=account_api.PasswordInput,
        text="Your other tokens and sessions end.",
    ),
    "POST /api/auth/reset": Call(
        "Have a link for a new password sent",
        {202: None},
        body=account_api.ResetInput,
        who=ANYONE,
        text="The answer does not tell whether there is such an account.",
    ),
    "POST /api/auth/reset/confirm": Call(
        "Set a new password with that link",
        {204: None},
        body=account_api.ResetConfirmInput,
        who=ANYONE,
    ),
    "GET /api/auth/sessions": Call("Where you are signed in", {200: Page(account_api.LoginRowSerializer)}),
    "DELETE /api/auth/sessions/{session_id}": Call("End a session", {204: None}),
    "GET /api/auth/keys": Call("Your API keys", {200: Page(account_api.KeySerializer)}),
    "POST /api/auth/keys": Call("Make an API key", {201: NewKey}, body=account_api.KeyInput),
    "DELETE /api/auth/keys/{key_id}": Call("Revoke an API key", {204: None}),
}
USERS = {
    "GET /api/users": Call("People", {200: Page(people_api.PersonSerializer)}, role="admins"),
    "POST /api/users": Call(
        "Add someone",
        {201: people_api.PersonSerializer},
        body=people_api.PersonInput,
        errors=(409,),
        role="admins",
    ),
    "PATCH /api/users/{user_id}": Call(
        "Change someone's name or role, disable or enable them",
        {200: people_api.PersonSerializer},
        body=people_api.PersonChange,
        errors=(409,),
        role="admins",
    ),
    "DELETE /api/users/{user_id}": Call("Remove someone", {204: None}, errors=(409,), role="admins"),
    "GET /api/users/{user_id}/sessions": Call(
        "Where someone is signed in", {200: Page(account_api.LoginRowSerializer)}, role="admins"
    ),
    "DELETE /api/users/{user_id}/sessions": Call("Sign someone out everywhere", {204: None}, role="admins"),
    "DELETE /api/users/{user_id}/second-factor": Call(
        "Take someone's second factor away", {204: None}, errors=(409,), role="admins"
    ),
    "GET /api/users/invite": Call("Open invitations", {200: Page(people_api.InvitationSerializer)}, role="admins"),
    "POST /api/users/invite": Call(
        "Invite someone",
        {201: SentInvitation},
        body=people_api.InvitationInput,
        errors=(409,),
        role="admins",
    ),
    "DELETE /api/users/invite/{invitation_id}": Call("Take an invitation back", {204: None}, role="admins"),
}
CALLS = {**AUTH, **USERS}
