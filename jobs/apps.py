from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    verbose_name = "Jobs"

    def ready(self) -> None:
        from jobs import activity
        from nodes import selectors

        if activity.of_node not in selectors.activity_sources:
            selectors.activity_sources.append(activity.of_node)
