"""`python -m tests.queue_script NODE_ID < preset.yaml`: queue a preset of the test's own on a running house.

Only built-in presets can be named from outside, and none of them does what a test of processes needs. Everything after
the look-up by name is the real thing: rendered, frozen, signed, queued.
"""

from __future__ import annotations

import sys
from unittest import mock

import django

django.setup()

from hyprbox.lib.actors import Actor
from jobs import services
from presets import catalogue
from presets.documents import load_yaml

preset = load_yaml(sys.stdin.buffer.read())
with mock.patch.object(catalogue, "find", lambda name: preset):
    order = services.Order(preset=preset.name, variables={})
    job, _ = services.queue_job(by=Actor.system("test"), order=order, node_id=sys.argv[1])
print(job.pk)
