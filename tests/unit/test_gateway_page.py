"""The page escapes every text that a user, a solver or a scheduler can choose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from edbjobs.v1 import cluster_pb2, cluster_service_pb2, job_pb2
from edbjobs_server.gateway.dashboard.page import render
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

HOSTILE = '<script>alert("1")</script>\'&'


def fill(message: Message, depth: int = 3) -> None:
    """Set every text of a message, and of the messages in it, to a hostile one."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.GetOptions().map_entry:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            value = [HOSTILE] if field.is_repeated else HOSTILE
            message.MergeFrom(type(message)(**{field.name: value}))
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth:
            part = getattr(message, field.name)
            fill(part.add() if field.is_repeated else part, depth - 1)


def jobs() -> Iterator[job_pb2.Job]:
    waiting, running, ended = job_pb2.Job(), job_pb2.Job(), job_pb2.Job()
    for job in (waiting, running, ended):
        fill(job)
    running.ClearField("waiting")
    ended.ClearField("waiting")
    ended.ClearField("progress")
    yield from (waiting, running, ended)


@pytest.mark.parametrize("answering", [True, False])
def test_hostile_texts_are_escaped(answering: bool) -> None:
    status, partition = cluster_service_pb2.GetSystemStatusResponse(), cluster_pb2.Partition(is_default=True)
    fill(status)
    fill(partition)
    status.schedulers[0].responding = answering
    html = render(status, list(jobs()), [partition])
    assert "<script" not in html
    assert 'alert("1")' not in html
    assert html.count("&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&#39;&amp;") > 15
    assert html.count("<tr>") == 1 + 3 + 1 + 1


def test_the_page_of_an_empty_service_has_one_table() -> None:
    html = render(cluster_service_pb2.GetSystemStatusResponse(), [], [])
    assert html.startswith("<!doctype html>")
    assert html.count("<table>") == 1
    assert "role=" not in html
