"""Column types that Django has no field for."""

from __future__ import annotations

from typing import Any

from django.db import models


class RealField(models.FloatField):  # type: ignore[type-arg]
    """PostgreSQL `real`: four bytes are plenty for a measurement, and history is long."""

    def db_type(self, connection: Any) -> str:
        return "real"
