"""The no-op as Celery and Dramatiq want it: in a module that their workers import. Only for `benchmarks/peer.py`."""

from __future__ import annotations

import os

import celery
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

REDIS = os.environ["PEER_REDIS"]

celery_app = celery.Celery("peer_tasks", broker=REDIS, backend=REDIS)
dramatiq_broker = RedisBroker(url=REDIS)
dramatiq_broker.add_middleware(Results(backend=RedisBackend(url=REDIS)))
dramatiq.set_broker(dramatiq_broker)


@celery_app.task
def celery_noop(value: int) -> int:
    return value


@dramatiq.actor(store_results=True)
def dramatiq_noop(value: int) -> int:
    return value
