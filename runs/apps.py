from django.apps import AppConfig
from django.conf import settings


class RunsConfig(AppConfig):
    name = "runs"
    verbose_name = "Holdfast"

    def ready(self) -> None:
        from runs.clickhouse import client

        client.configure(settings.CLICKHOUSE_URL)
