"""Chaos: workers, broker and Redis are killed and stopped at random while a feed goes on.

People command and push rules meanwhile. `python -m tests.topologies.chaos --seed 7 --kills 100`
prints what it does; the seed gives the same acts and the same commands in the same order. At the
end the alerts topic must hold exactly what a replay of the dumped log gives, none missing, none
twice, and Redis exactly what an undisturbed router writes of it. Only a worker that was frozen may
repeat alerts in the topic, byte for byte; in Redis there are none of these either. No act is a
reason for a worker to end by itself: none may, though it would be started again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from engine.cli import ExitCode
from tests.services.kafka import Kafka
from tests.services.redis import Redis
from tests.topologies.live import DAY, Live, wait_for
from tests.topologies.operators import Operators
from topologies import feed
from topologies.redis_client import RedisLink, connect
from topologies.router import Router

WORKERS = ("a", "b")
LEAST_PAUSE_S = 1.0
MOST_PAUSE_S = 3.0
SMALL_FILE_BYTES = 20_000
N_PARTITIONS = 4
FLUSH_MS = 300

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it narrates every outage


def say(*words: Any) -> None:
    print(f"{time.strftime('%H:%M:%S')}", *words, flush=True)


class Chaos:
    """One run: what may happen, and what must hold afterwards."""

    def __init__(self, folder: Path, seed: int, *, redis_stop_s: float) -> None:
        say("seed", seed)
        self.random = random.Random(seed)
        self.redis_stop_s = redis_stop_s
        self.kafka = Kafka(folder / "kafka")
        self.redis = Redis(folder / "redis")
        self.kafka.start()
        self.redis.start()
        # alerts wait long enough that kills and freezes come between the state and its alerts
        more = {"partitions": N_PARTITIONS, "alerts_flush_ms": FLUSH_MS}
        self.live = Live(folder / "live", self.kafka, self.redis.url, **more)
        self.operators = Operators(self.live, seed, lambda: self._sent.event_ms)
        self.done: Counter[str] = Counter()
        self.n_repeats = 0
        self.ended: list[str] = []
        self._over = threading.Event()
        self._failed: BaseException | None = None
        self._sent = feed.Sent()

    # --- acts

    def kill_worker(self) -> None:
        """SIGKILL one worker and start it again, at once or a little later."""
        name = self.random.choice(WORKERS)
        self._kill(name)
        time.sleep(self.random.choice((0.0, 0.5, 2.0)))
        self.live.start(name)

    def rebalance(self) -> None:
        """Let a third worker join, and leave in order."""
        self.live.start("guest")
        time.sleep(self.random.uniform(4.0, 7.0))
        # it may not have come so far as to handle the signal
        self._note_end("guest", self.live.workers["guest"].stop(), unless=(0, -signal.SIGTERM))

    def restart_broker(self) -> None:
        """Kill the broker, or stop it in order, and start it again."""
        if self.random.random() < 0.5:
            self.kafka.kill()
        else:
            self.kafka.stop()
        time.sleep(self.random.uniform(0.0, 2.0))
        self.kafka.start()

    def stop_redis(self) -> None:
        """Take Redis away for a while."""
        self.redis.stop()
        time.sleep(self.redis_stop_s)
        self.redis.start()

    def kill_redis(self) -> None:
        """Kill Redis in the middle of whatever it does."""
        self.redis.kill()
        self.redis.start()

    def tear_snapshot(self) -> None:
        """Cut the newest snapshot of a partition in half, and kill who would go on from it."""
        found = sorted((self.live.folder / "snapshots").glob("partition-*/*.snapshot"))
        newest = {path.parent: path for path in found if path.exists()}
        if newest:
            path = self.random.choice(sorted(newest.values()))
            with path.open("r+b") as stream:
                stream.truncate(path.stat().st_size // 2)
        for name in WORKERS:
            self._kill(name)
        for name in WORKERS:
            self.live.start(name)

    def fill_disk(self) -> None:
        """Let every snapshot of a worker fail half way, as on a full disk."""
        process = self.live.workers[self.random.choice(WORKERS)].process
        limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, limits[1]))
        time.sleep(5.0)
        if process.poll() is None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)

    def freeze_worker(self) -> None:
        """Freeze a worker until others have its partitions, and let it go on as if it had them."""
        worker = self.live.workers[self.random.choice(WORKERS)]
        self.operators.stir()
        time.sleep(FLUSH_MS / 2000)  # the alerts are found, but not published
        worker.process.send_signal(signal.SIGSTOP)
        time.sleep(self.live.settings.session_timeout_s + self.random.uniform(1.0, 3.0))
        worker.process.send_signal(signal.SIGCONT)

    # --- the run

    def run(self, plan: dict[str, int], n_readings_per_s: float) -> None:
        """Carry out each act as often as planned, in random order, then check."""
        for name in WORKERS:
            self.live.start(name)
        feeder = self._beside(self._feed, n_readings_per_s)
        wait_for(lambda: self._sent.readings or self._failed, "the feed to begin")
        up = [self.live.workers[name] for name in WORKERS]
        wait_for(lambda: all(w.log.read_text() for w in up), "kernels to be compiled", 120)
        operators = self._beside(self.operators.work, self._over)
        acts = [name for name, n in plan.items() for _ in range(n)]
        self.random.shuffle(acts)
        for number, name in enumerate(acts, 1):
            if self._failed is not None:
                break
            act: Callable[[], None] = getattr(self, name)
            say(f"{number}/{len(acts)}", name.replace("_", " "))
            act()
            self.done[name] += 1
            self._restart_the_dead()
            time.sleep(self.random.uniform(LEAST_PAUSE_S, MOST_PAUSE_S))
        self._over.set()
        for thread in (feeder, operators):
            thread.join(60)
        if self._failed is not None:
            raise self._failed
        self.check()
        for name in WORKERS:
            self._note_end(name, self.live.workers[name].stop(), unless=(0,))
        assert not self.ended, "; ".join(self.ended)

    def _beside(self, what: Callable[..., None], *given: Any) -> threading.Thread:
        """Run something in a thread of its own; what fails there fails the run."""

        def run() -> None:
            try:
                what(*given)
            except BaseException as error:
                self._failed = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _kill(self, name: str) -> None:
        worker = self.live.workers[name]
        worker.kill()
        self._note_end(name, worker.process.returncode, unless=(-signal.SIGKILL,))

    def _restart_the_dead(self) -> None:
        """Do what a supervisor does."""
        for name in WORKERS:
            code = self.live.workers[name].process.poll()
            if code is not None:
                self._note_end(name, code)
                self.live.start(name)

    def _note_end(self, name: str, code: int, *, unless: tuple[int, ...] = ()) -> None:
        """Note how a worker ended, unless it is how this run ended it.

        One that starts while no broker answers is refused, as a wrong address is.
        """
        log = self.live.workers[name].log.read_text().rstrip()
        refused = log.rpartition("\n")[2].startswith("tocsin: error: kafka_brokers: none of")
        if code in unless or (code == ExitCode.BAD_INPUT and refused):
            return
        acts = sum(self.done.values())
        self.ended.append(f"worker {name} ended by itself with {code}, around act {acts + 1}")
        say("  ", self.ended[-1])
        print(log[-3000:], file=sys.stderr, flush=True)

    def _feed(self, rate: float) -> None:
        async def publish() -> None:
            what = feed.Feed(
                readings=[DAY / "readings.parquet"],
                catalog=self.live.catalog,
                speed=None,
                rate=rate,
                ticks=True,
                loop=True,
            )

            def note(sent: feed.Sent) -> None:
                self._sent = sent

            await feed.publish(
                self.live.settings, what, on_progress=note, stopped=self._over.is_set
            )

        asyncio.run(publish())

    def check(self) -> None:
        """Compare what came out with a replay, and Redis with an undisturbed router."""

        def relayed() -> bool:
            self._restart_the_dead()
            return self.live.relayed()

        wait_for(relayed, "all commands and rules to come into the log", 120)
        expected = self.live.replayed()
        n = sum(map(len, expected.values()))
        say(f"{self.live.total.readings:,} readings, {n:,} alerts expected; {dict(self.done)}")
        self._check_controls(expected)

        def arrived() -> bool:
            self._restart_the_dead()
            return sum(map(len, self._published().values())) >= n

        wait_for(arrived, f"{n} alerts in the topic", 120)
        published = self._published()
        for partition in sorted(expected.keys() | published.keys()):
            compare(partition, published.get(partition, []), expected.get(partition, []))
        undisturbed = asyncio.run(self._undisturbed(expected))

        def settled() -> bool:
            return shown(self.live.keys()) == shown(undisturbed)

        try:
            wait_for(settled, "Redis to hold what an undisturbed router writes", 60)
        except AssertionError:
            compare_keys(shown(self.live.keys()), shown(undisturbed))
            raise
        say(f"exactly {n:,} alerts in the topic and in Redis, none missing, none twice")
        say(f"frozen workers repeated {self.n_repeats} in the topic, byte for byte")

    def _published(self) -> dict[int, list[tuple[bytes, bytes]]]:
        """Return what is in the alerts topic, without what a worker repeated that was frozen."""
        published = self.live.published()
        if self.done["freeze_worker"]:
            once = {partition: list(dict.fromkeys(each)) for partition, each in published.items()}
            self.n_repeats = sum(len(published[p]) - len(once[p]) for p in once)
            return once
        return published

    def _check_controls(self, alerts: dict[int, list[tuple[bytes, bytes]]]) -> None:
        """Look for everything that people sent: in the log, once or more, and among the alerts."""
        sent, n_pushed = self.operators.sent, self.operators.n_pushed
        logged = Counter(
            (partition, record.get("id", record["tocsin"]))
            for partition, record in self.live.controls()
        )
        n_rules = [logged[partition, "rules"] for partition in range(N_PARTITIONS)]
        lost = set(sent) - {what for _, what in logged}
        assert not lost, f"{len(lost)} commands are not in the log, such as {min(lost)}"
        assert min(n_rules) >= n_pushed, f"{n_pushed} pushes of rules, in the logs {n_rules}"
        n_again = sum(n - 1 for (_, what), n in logged.items() if what in set(sent))
        records = [record for each in alerts.values() for _, record in each]
        n_traces = sum(b'"cause":"command"' in record for record in records)
        n_sets = len({orjson.loads(record)["rules"] for record in records})
        say(
            f"{len(sent)} commands, {n_again} of them again after a kill, left {n_traces} traces; "
            f"{n_pushed} pushes of rules, alerts by {n_sets} sets"
        )
        assert n_traces and n_sets > 1

    async def _undisturbed(self, alerts: dict[int, list[tuple[bytes, bytes]]]) -> dict[str, Any]:
        with Redis() as calm:
            settings = self.live.settings.model_copy(update={"redis_url": calm.url})
            link = RedisLink.of(settings)
            router = Router(connect(link), prefix=link.key_prefix, max_stream=link.max_stream)
            for partition, each in alerts.items():
                places = [tuple(map(int, at.split(b"/"))) for at, _ in each]
                rows = [
                    (at[1], at[2], record) for at, (_, record) in zip(places, each, strict=True)
                ]
                await router.flush(partition, rows)
            await router.close()
            before, self.live.redis_url = self.live.redis_url, calm.url
            try:
                return self.live.keys()
            finally:
                self.live.redis_url = before

    def close(self) -> None:
        self._over.set()
        self.live.stop()
        self.kafka.close()
        self.redis.close()


def compare(partition: int, got: list[Any], wanted: list[Any]) -> None:
    """Fail with the first difference of a partition's alerts."""
    places = Counter(at for at, _ in got)
    twice = [at for at, n in places.items() if n > 1]
    missing = [at for at, _ in wanted if at not in places]
    assert not twice, f"partition {partition}: {len(twice)} alerts twice, first {twice[0]!r}"
    assert not missing, f"partition {partition}: {len(missing)} missing, first {missing[0]!r}"
    for one, other in zip(got, wanted, strict=True):
        assert one == other, f"partition {partition}: {one!r} instead of {other!r}"


def shown(keys: dict[str, Any]) -> dict[str, Any]:
    """Return Redis as it must be equal: entries of streams without their ids, by partition.

    Partitions reach a stream in any order among each other, and an id holds the time of writing.
    """
    found: dict[str, Any] = {}
    for name, content in keys.items():
        if isinstance(content, list) and content and isinstance(content[0][1], dict):
            found[name] = sorted((sorted(fields.items()) for _, fields in content), key=str)
        else:
            found[name] = content
    return found


def compare_keys(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Say which keys differ."""
    for name in sorted(got.keys() | wanted.keys()):
        if got.get(name) != wanted.get(name):
            say("differs:", name, str(got.get(name))[:300], "wanted", str(wanted.get(name))[:300])


def main(args: list[str] | None = None) -> None:
    """Run the chaos that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rebalances", type=int, default=20)
    parser.add_argument("--brokers", type=int, default=5)
    parser.add_argument("--redis-stops", type=int, default=2)
    parser.add_argument("--redis-stop-s", type=float, default=30.0)
    parser.add_argument("--redis-kills", type=int, default=10)
    parser.add_argument("--tears", type=int, default=3)
    parser.add_argument("--full-disks", type=int, default=3)
    parser.add_argument("--freezes", type=int, default=5)
    parser.add_argument("--rate", type=float, default=3000.0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="tocsin-chaos-") as temporary:
        chaos = Chaos(given.folder or Path(temporary), given.seed, redis_stop_s=given.redis_stop_s)
        try:
            chaos.run(
                {
                    "kill_worker": given.kills,
                    "rebalance": given.rebalances,
                    "restart_broker": given.brokers,
                    "stop_redis": given.redis_stops,
                    "kill_redis": given.redis_kills,
                    "tear_snapshot": given.tears,
                    "fill_disk": given.full_disks,
                    "freeze_worker": given.freezes,
                },
                given.rate,
            )
        except BaseException:
            for path in sorted((chaos.live.folder).glob("*.log")):
                say(f"--- the end of {path.name}")
                print(path.read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            chaos.close()


if __name__ == "__main__":
    main()
