from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "audit"
    verbose_name = "Audit log"

    def ready(self) -> None:
        from audit import denials
        from hyprbox.lib import refusals

        refusals.listener = denials.note
