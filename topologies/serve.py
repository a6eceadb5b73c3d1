"""The life of a worker's process: from its settings to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from aiokafka.errors import KafkaConnectionError

from engine.cli import ExitCode
from engine.errors import TocsinError
from topologies.app import App, configure_logs, create_app
from topologies.kafka import no_answer
from topologies.logs import logger
from topologies.settings import Settings

log = logger()


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit code. Raises what is wrong at start."""
    configure_logs(settings)
    return asyncio.run(serve(create_app(settings)))


async def serve(app: App) -> int:
    """Run an app until SIGTERM or SIGINT; return the exit code.

    A second signal, or a shutdown that takes too long (a broker that is away can hold it up for
    minutes), ends the process at once, as a power cut would.
    """
    worker = app.worker
    worker.prepare()
    try:
        await worker.check()
    except KafkaConnectionError as error:
        raise no_answer(worker.settings, error) from error
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    try:
        try:
            await app.start()
        except KafkaConnectionError as error:
            # the brokers were there when they were asked, and are gone now
            raise no_answer(worker.settings, error) from error
        await app.wait(stop.wait())
        if stop.is_set():
            worker.stopping()
    finally:
        await _stop(app, hurry, worker.settings.shutdown_s)
    if app.crash_reason is None:
        log.info("stopped")
        return ExitCode.FINE
    worker.failed(app.crash_reason)  # unless said already
    expected = isinstance(app.crash_reason, TocsinError)
    return ExitCode.BAD_INPUT if expected else ExitCode.UNEXPECTED


async def _stop(app: App, hurry: asyncio.Event, within_s: float) -> None:
    """Stop an app, or end the process if that takes longer, or somebody is in a hurry."""
    stopping = asyncio.ensure_future(app.stop())
    hurrying = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({stopping, hurrying}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    if not stopping.done():
        reason = "asked to twice" if hurry.is_set() else f"not done within {within_s:g} s"
        log.error("the worker ends without leaving its group", reason=reason)
        logging.shutdown()
        os._exit(1)
    await stopping
