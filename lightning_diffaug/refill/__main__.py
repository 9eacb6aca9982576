"""``python -m lightning_diffaug.refill job.json``: the one entry point of every launcher.

What this module imports is light: the manners come before the seconds in which torch is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
from pathlib import Path

from lightning_diffaug.refill.background import become_background


def main() -> int:
    """Reads the job and works on it until the parent ends this process."""
    parser = argparse.ArgumentParser(prog="python -m lightning_diffaug.refill", description=__doc__)
    parser.add_argument("job", type=Path, help="job.json, as a run's DataModule writes it")
    parser.add_argument("--started-by-thread", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    manners = json.loads(arguments.job.read_text(encoding="utf-8"))
    become_background(manners["parent_pid"], manners["nice"], arguments.started_by_thread)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return _work(arguments.job)
    except KeyboardInterrupt:  # SIGTERM
        return 128 + signal.SIGTERM


def _work(path: Path) -> int:
    import torch

    from lightning_diffaug.errors import ConfigurationError, PoolError, TooFewAcceptedError
    from lightning_diffaug.refill.job import Job
    from lightning_diffaug.refill.status import EXIT_CONFIGURATION, EXIT_REJECTED, EXIT_STORAGE, STATUS, Reporter
    from lightning_diffaug.refill.worker import work

    job = Job.read(path)
    torch.set_num_threads(job.threads)
    reporter = Reporter(Path(job.run_dir) / STATUS)
    try:
        work(job, reporter)
    except Exception as error:
        logging.exception("the refill ends")
        reporter.status.failure = f"{type(error).__name__}: {error}"
        with contextlib.suppress(PoolError):  # a full disk: the exit code has to do
            reporter.write()
        if isinstance(error, ConfigurationError):
            return EXIT_CONFIGURATION
        if isinstance(error, TooFewAcceptedError):
            return EXIT_REJECTED
        return EXIT_STORAGE if isinstance(error, PoolError) else 1
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # what was half done is removed by now; winding up torch and the generator's threads takes seconds
