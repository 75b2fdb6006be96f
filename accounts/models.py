"""People, the places where they are signed in, their keys and links, and the counters that slow down guessing."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower, Now
from django.utils.crypto import salted_hmac

from hyprbox.lib.actors import Role, Scope
from hyprbox.lib.rowmac import Sealed


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(Sealed, AbstractBaseUser):
    """Someone who logs in. `token_version` is in every token: raising it ends all of them at once."""

    SEALED = (
        "email", "password", "role", "is_active", "token_version",
        "has_factor", "totp_seed", "totp_key_id", "recovery_codes",
    )  # fmt: skip

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=120)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    is_active = models.BooleanField(default=True)
    token_version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # Whether a login asks for more than the password. The seed is encrypted (`hyprbox.lib.secretbox`); `totp_step` is the
    # last time step whose code was used.
    has_factor = models.BooleanField(default=False, editable=False)
    totp_seed = models.BinaryField(max_length=128, default=b"", editable=False)
    totp_key_id = models.CharField(max_length=16, blank=True, default="", editable=False)
    totp_step = models.BigIntegerField(default=0, editable=False)
    recovery_codes = ArrayField(models.CharField(max_length=64), default=list, blank=True, editable=False)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["name"]

    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("email"), name="accounts_one_user_per_email")]
        ordering: ClassVar = ["email"]

    def __str__(self) -> str:
        return self.email

    @property
    def has_totp(self) -> bool:
        return bool(self.totp_seed)

    @property
    def needs_factor(self) -> bool:
        """The role has to have a second factor, and this person has none yet."""
        return self.role in settings.HYPRBOX_REQUIRE_SECOND_FACTOR and not self.has_factor

    # The Django admin asks these; in HyprBox an admin may do everything there.
    @property
    def is_staff(self) -> bool:
        return self.is_active and self.role == Role.ADMIN and not self.needs_factor

    @property
    def is_superuser(self) -> bool:
        return self.is_staff

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return self.is_staff

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_staff

    def get_full_name(self) -> str:
        return self.name or self.email

    def get_short_name(self) -> str:
        return self.name or self.email

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """A page session dies with the password and with `token_version`."""
        value = f"{self.password}:{self.token_version}"
        return salted_hmac("accounts.session", value, secret=secret, algorithm="sha256").hexdigest()


class Login(models.Model):
    """One place where someone is signed in, until `expires_at` at the latest.

    `fresh_until` is when the last proof of presence for sensitive acts ends; None when there was none.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ip = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    fresh_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True


class PageSession(Login):
    """A session of the pages. Of its key, which is in the browser's cookie, only the SHA-256 is stored."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="page_sessions")
    key_digest = models.BinaryField(max_length=32, unique=True)
    data = models.TextField()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["expires_at"], name="accounts_pagesession_ends")]

    def __str__(self) -> str:
        return f"{self.user} since {self.created_at:%Y-%m-%d}"


class RefreshFamily(Login):
    """All refresh tokens that descend from one login. Only the one with `digest` is good.

    The one before it (`previous_digest`) is answered once more, for seconds and to the client that swapped it:
    its answer may have been lost on the way.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="refresh_families")
    token_version = models.PositiveIntegerField()
    digest = models.BinaryField(max_length=32)
    previous_digest = models.BinaryField(max_length=32, null=True)
    rotated_at = models.DateTimeField()
    rotated_by = models.BinaryField(max_length=32, null=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    seal = models.BinaryField(max_length=32, default=b"")  # both seals: `accounts.families`
    fresh_seal = models.BinaryField(max_length=32, default=b"")

    def __str__(self) -> str:
        return f"{self.user} since {self.created_at:%Y-%m-%d}"


class ApiKey(Sealed):
    """A program's way in, on behalf of a person: never more than its scopes, never more than the person's role."""

    SEALED = ("user_id", "prefix", "digest", "scopes", "expires_at", "revoked_at")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=120)
    prefix = models.CharField(max_length=8, db_index=True)
    digest = models.BinaryField(max_length=32)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope.choices))
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created_at"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} (hbak_{self.prefix}…)"


class Passkey(Sealed):
    """A second factor that a device or a password manager keeps; here is its public half."""

    SEALED = ("user_id", "credential_id", "public_key")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="passkeys")
    name = models.CharField(max_length=120)
    credential_id = models.BinaryField(max_length=1023, unique=True)
    public_key = models.BinaryField(max_length=2048)
    sign_count = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["created_at"]

    def __str__(self) -> str:
        return self.name


class Invitation(Sealed):
    """A link with which someone makes an account, with the role that an admin chose. It works once."""

    SEALED = ("email", "role", "digest", "expires_at", "accepted_at", "revoked_at")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(max_length=254)
    role = models.CharField(max_length=10, choices=Role.choices)
    digest = models.BinaryField(max_length=32, unique=True)
    invited_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                Lower("email"),
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="accounts_one_open_invitation",
            )
        ]

    def __str__(self) -> str:
        return self.email


class PasswordReset(models.Model):
    """A link with which someone who forgot their password sets a new one. It works once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="password_resets")
    digest = models.BinaryField(max_length=32, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.user} at {self.created_at:%Y-%m-%d}"


class RateCounter(models.Model):
    """How often something was tried within a window; counted by one atomic upsert, across processes."""

    key = models.CharField(max_length=200, primary_key=True)
    window_started_at = models.DateTimeField()
    count = models.PositiveIntegerField()
    blocked_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"
