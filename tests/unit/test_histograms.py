"""Histograms that count a whole group at once: the same numbers as prometheus_client's own, and no error."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from booking_platform.messaging import metric_files, metric_page
from booking_platform.messaging.metrics import Histogram, _Histogram
from tests.telemetry import metrics_in

BUCKETS = (0.1, 1, 10)


@pytest.fixture
def histogram() -> Iterator[Histogram]:
    """A histogram of this test alone."""
    name = f"measured_{uuid4().hex}_seconds"
    histogram = Histogram(name, "What the test measures.", ["kind"], BUCKETS)
    yield histogram
    prometheus_client.REGISTRY.unregister(histogram._metric)
    forget(name)


def forget(name: str) -> None:
    """Leave nothing of a metric in this process."""
    for file in metric_files.FILES.values():
        for key in [key for key in file._values if name in key]:
            del file._values[key]


def lines(page: bytes, name: str) -> list[str]:
    return [line for line in page.decode().splitlines() if line.startswith(name)]


@given(st.lists(st.sampled_from([0, 0.1, 0.1000001, 0.5, 1, 9.5, 10, 11, 1e9]), max_size=30))
def test_a_group_counts_as_its_amounts_do_one_by_one(amounts: Sequence[float]) -> None:
    registry, name = CollectorRegistry(), f"m{uuid4().hex}"
    _Histogram(f"{name}_ours", "", buckets=BUCKETS, registry=registry).observe_all(amounts)
    control = prometheus_client.Histogram(f"{name}_theirs", "", buckets=BUCKETS, registry=registry)
    for amount in amounts:
        control.observe(amount)
    [ours, theirs] = (
        [sample.value for sample in metric.samples if not sample.name.endswith("_created")]
        for metric in registry.collect()
    )
    forget(name)
    assert ours == pytest.approx(theirs)


class TestAHistogram:
    def test_it_is_shared_through_the_files(self, histogram: Histogram, tmp_path: Path) -> None:
        with metrics_in(tmp_path / "metrics"):
            histogram.observe([0.05, 0.5, 0.5, 50], "a")
            page = metric_page.page(tmp_path / "metrics")
        shown = [line.rpartition(" ")[2] for line in lines(page, f"{histogram._name}_bucket")]
        assert shown == ["1.0", "3.0", "3.0", "4.0"]
        assert lines(page, f"{histogram._name}_sum")[0].endswith(" 51.05")

    def test_what_goes_wrong_is_said_once(
        self, histogram: Histogram, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            histogram.observe([1.0], "a", "a label too many")
        assert caplog.text.count("Counting fails") == 1
        histogram.observe([1.0], "a")
        assert caplog.text.count("Counting works again") == 1


def test_what_is_known_is_shown_before_it_happens(tmp_path: Path) -> None:
    from booking_platform.messaging.metrics import DUPLICATE_EVENTS

    with metrics_in(tmp_path / "metrics"):
        DUPLICATE_EVENTS.known("known before")
        page = metric_page.page(tmp_path / "metrics").decode()
    assert 'duplicate_events_total{event_type="known before"} 0.0' in page
