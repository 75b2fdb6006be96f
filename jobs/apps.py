from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    verbose_name = "Jobs"

    def ready(self) -> None:
        from jobs import activity, services
        from nodes import selectors
        from nodes import services as nodes

        if activity.of_node not in selectors.activity_sources:
            selectors.activity_sources.append(activity.of_node)
        if services.cancel_jobs_of_removed_node not in nodes.removal_hooks:
            nodes.removal_hooks.append(services.cancel_jobs_of_removed_node)
