"""Partitions, roll-ups, sparklines, and what the ranges show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from nodes import history, selectors, series
from nodes.models import SPARK_POINTS, FiveMinutes, Heartbeat, Hour, Node, Sparkline, StatusFlip
from nodes.series import FLEET, Range
from nodes.status import Status
from tests.factories import make_node

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("partitions")]


def floor(moment: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def measure(node: Node, at: datetime, cpu: float | None, **over: float | None) -> None:
    Heartbeat.objects.create(node=node.pk, at=at, cpu_percent=cpu, memory_percent=50, disk_percent=60, **over)


@pytest.fixture
def node() -> Node:
    return make_node("web-1", first_seen_at=timezone.now() - timedelta(days=3), last_seen_at=timezone.now())


class TestPartitions:
    def test_they_are_made_ahead_and_only_once(self) -> None:
        far = timezone.now() + timedelta(days=60)
        made = history.make_partitions(far, far)
        assert made == 3
        assert history.make_partitions(far, far) == 0

    def test_a_day_that_nobody_needs_is_dropped_with_its_rows(self, node: Node) -> None:
        now = timezone.now()
        measure(node, now - timedelta(days=9), 1)
        measure(node, now - timedelta(days=6), 2)
        assert f"nodes_heartbeat_{now - timedelta(days=9):%Y%m%d}" in history.drop_old()
        assert [row.cpu_percent for row in Heartbeat.objects.all()] == [2]
        assert history.drop_old() == []

    def test_old_flips_go_too(self, node: Node) -> None:
        for days in (400, 1):
            at = timezone.now() - timedelta(days=days)
            StatusFlip.objects.create(node=node, at=at, before=Status.ONLINE, after=Status.OFFLINE)
        history.drop_old()
        assert StatusFlip.objects.count() == 1

    def test_months_follow_months(self) -> None:
        months = history.HOUR_ROWS
        december = months.start_of(datetime(2025, 12, 17, 5, tzinfo=UTC))
        assert december == datetime(2025, 12, 1, tzinfo=UTC)
        assert months.end_of(december) == datetime(2026, 1, 1, tzinfo=UTC)


class TestRollUp:
    def test_closed_buckets_hold_averages_and_maxima(self, node: Node) -> None:
        bucket = floor(timezone.now(), 3600) - timedelta(hours=2)
        for second, cpu in ((0, 10.0), (299, 20.0), (300, 90.0)):
            measure(node, bucket + timedelta(seconds=second), cpu)
        history.roll_up()
        rows = list(FiveMinutes.objects.exclude(node=FLEET).order_by("at"))
        assert [(row.at, row.samples, row.cpu_percent_avg, row.cpu_percent_max) for row in rows] == [
            (bucket, 2, 15.0, 20.0),
            (bucket + timedelta(minutes=5), 1, 90.0, 90.0),
        ]
        hour = Hour.objects.get(node=node.pk)
        assert (hour.at, hour.samples, hour.cpu_percent_avg, hour.cpu_percent_max) == (bucket, 3, 40.0, 90.0)

    def test_twice_is_once(self, node: Node) -> None:
        measure(node, timezone.now() - timedelta(minutes=30), 10)
        history.roll_up()
        before = list(FiveMinutes.objects.values_list("node", "at", "samples").order_by("node", "at"))
        history.roll_up()
        assert list(FiveMinutes.objects.values_list("node", "at", "samples").order_by("node", "at")) == before
        assert len(before) == 2  # the node's and the fleet's

    def test_the_bucket_under_way_is_left_alone(self, node: Node) -> None:
        now = floor(timezone.now(), 300) + timedelta(seconds=5)
        measure(node, now - timedelta(seconds=10), 10)
        history.roll_up(now)
        assert not FiveMinutes.objects.exists()
        history.roll_up(now + timedelta(seconds=10))
        assert FiveMinutes.objects.filter(node=node.pk).exists()

    def test_it_catches_up_after_days_without_a_worker(self, node: Node) -> None:
        for hours in range(2, 61, 7):
            measure(node, timezone.now() - timedelta(hours=hours), hours)
        history.roll_up()
        assert FiveMinutes.objects.filter(node=node.pk).count() == 9
        assert Hour.objects.filter(node=node.pk).count() == 9

    def test_the_fleet_has_averages_of_all_nodes(self, node: Node) -> None:
        at = timezone.now() - timedelta(minutes=20)
        measure(node, at, 10)
        measure(make_node("web-2"), at + timedelta(microseconds=1), 30)
        history.roll_up()
        fleet = FiveMinutes.objects.get(node=FLEET)
        assert (fleet.cpu_percent_avg, fleet.cpu_percent_max, fleet.samples) == (20, 30, 2)


class TestSparklines:
    def redrawn(self, node: Node, age: timedelta) -> Sparkline:
        Node.objects.filter(pk=node.pk).update(first_seen_at=timezone.now() - age)
        history.roll_up()
        history.redraw_sparklines()
        return Sparkline.objects.get(node=node)

    @pytest.mark.parametrize(
        ("age", "step"), [(timedelta(minutes=9), 60), (timedelta(hours=2), 300), (timedelta(days=2), 1800)]
    )
    def test_the_step_grows_with_the_nodes_age(self, node: Node, age: timedelta, step: int) -> None:
        measure(node, timezone.now() - timedelta(seconds=1.5 * step), 40)
        spark = self.redrawn(node, age)
        assert spark.step_seconds == step
        assert len(spark.cpu_percent) == SPARK_POINTS
        assert [value for value in spark.cpu_percent if value is not None] == [40]

    def test_buckets_are_in_their_places(self, node: Node) -> None:
        end = floor(selectors.database_now(), 60)
        for minutes, cpu in ((1, 11.0), (2, 22.0), (48, 33.0), (49, 44.0)):
            measure(node, end - timedelta(minutes=minutes), cpu)
        spark = self.redrawn(node, timedelta(minutes=9))
        assert spark.cpu_percent[-1] == 11
        assert spark.cpu_percent[-2] == 22
        assert spark.cpu_percent[0] == 33
        assert spark.memory_percent[-1] == 50

    def test_every_minute_only_the_young_are_drawn(self, node: Node) -> None:
        history.redraw_sparklines(only_young=True)
        assert not Sparkline.objects.exists()

    def test_a_card_ends_with_the_newest_figure(self, node: Node) -> None:
        end = floor(selectors.database_now(), 60)
        measure(node, end - timedelta(minutes=1), 11)
        self.redrawn(node, timedelta(minutes=9))
        for seconds, gaps in ((-5, 0), (5, 0), (125, 2)):
            Node.objects.update(cpu_percent=77.0, last_seen_at=end + timedelta(seconds=seconds))
            spark = selectors.node_card("web-1").spark
            assert spark is not None
            assert len(spark.cpu_percent) == SPARK_POINTS
            assert spark.cpu_percent[-1] == 77
            if seconds > 0:
                assert spark.cpu_percent[-2 - gaps] == 11

    def test_a_node_of_a_few_seconds_has_one_point(self) -> None:
        make_node("young-1", first_seen_at=timezone.now(), last_seen_at=timezone.now(), cpu_percent=5.0)
        spark = selectors.node_card("young-1").spark
        assert spark is not None and spark.cpu_percent == [5.0]


class TestRanges:
    def test_a_month_of_minutes_fits_into_500_points(self, node: Node) -> None:
        now = timezone.now()
        history.make_partitions(now - timedelta(days=31), now)
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO nodes_heartbeat (node, at, cpu_percent)
                SELECT %s, at, 10 FROM generate_series(%s::timestamptz, %s, '2 minutes') AS at
                """,
                [node.pk, now - timedelta(days=30), now],
            )
        history.roll_up()
        for chosen in Range:
            found = series.node_history(node.pk, chosen)
            points = found.series["cpu_percent"]
            assert 24 <= len(points) <= 500, chosen
            assert {(average, highest) for _, average, highest in points} == {(10, 10)}, chosen
            assert points[-1][0] > found.ends_at - timedelta(seconds=max(found.step_seconds, 300) + 1), chosen
            assert points[0][0] >= found.starts_at, chosen

    def test_without_a_worker_the_day_is_drawn_from_heartbeats(self, node: Node) -> None:
        measure(node, timezone.now() - timedelta(hours=5), 10)
        assert len(series.node_history(node.pk, Range.DAY).series["cpu_percent"]) == 1

    def test_rolled_up_and_raw_are_not_counted_twice(self, node: Node) -> None:
        bucket = floor(timezone.now(), 1800) - timedelta(minutes=30)
        measure(node, bucket, 10)
        history.roll_up()
        measure(node, timezone.now(), 99)
        points = series.node_history(node.pk, Range.WEEK).series["cpu_percent"]
        assert [(average, highest) for _, average, highest in points] == [(10, 10), (99, 99)]

    def test_metrics_without_values_are_empty(self, node: Node) -> None:
        measure(node, timezone.now(), 10)
        found = series.node_history(node.pk, Range.HOUR).series
        assert found["load_1"] == []
        assert len(found["cpu_percent"]) == 1

    @pytest.mark.parametrize("chosen", list(Range))
    def test_sparks_have_48_buckets(self, node: Node, chosen: Range) -> None:
        measure(node, timezone.now(), 10)
        make_node("web-2")
        found = series.sparks(["web-1", "web-2", "nobody"], chosen)
        assert set(found) == {"web-1"}
        assert len(found["web-1"].cpu_percent) == SPARK_POINTS
        assert found["web-1"].cpu_percent[-1] == 10

    def test_the_fleet_is_drawn_from_its_own_buckets_and_the_newest_heartbeats(self, node: Node) -> None:
        measure(node, timezone.now() - timedelta(hours=3), 10)
        history.roll_up()
        measure(node, timezone.now(), 30)
        for chosen, count in ((Range.DAY, 1), (Range.HOUR, 1), (Range.HOUR, 1000)):
            points = series.fleet_history(chosen, node_count=count).series["cpu_percent"]
            assert [average for _, average, _ in points] == ([10, 30] if chosen is Range.DAY else [30])
