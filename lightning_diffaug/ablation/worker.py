"""``python -m lightning_diffaug.ablation.worker``: makes runs of a sweep, one after the other, for `Workers`.

What this module imports is light: the manners come before the seconds in which torch is imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from lightning_diffaug.ablation.orders import Answer, Order, Setup, found_task
from lightning_diffaug.refill.background import become_background


def main() -> int:
    """Makes what is asked for until nothing more is, or the sweep has ended."""
    parser = argparse.ArgumentParser(prog="python -m lightning_diffaug.ablation.worker", description=__doc__)
    parser.add_argument("channel", type=int, help="file descriptor of the connection to the sweep")
    parser.add_argument("parent", type=int, help="process id of the sweep")
    parser.add_argument("--started-by-thread", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    become_background(arguments.parent, 0, arguments.started_by_thread)
    try:
        return _work(Connection(arguments.channel))
    except EOFError:
        return 0
    except (KeyboardInterrupt, SystemExit):  # SIGTERM; Lightning, in a fit, makes an exit of it
        return 128 + signal.SIGTERM
    except Exception:
        traceback.print_exc()
        return 1


def _work(channel: Connection) -> int:
    from hydra.core.singleton import Singleton
    from hydra.core.utils import configure_log, setup_globals
    from omegaconf.basecontainer import BaseContainer

    setup: Setup = channel.recv()
    setup_globals()
    Singleton.set_state({"instances": setup.singletons, "omegaconf_resolvers": BaseContainer._resolvers})
    task = found_task(setup.task)
    while True:
        order: Order = channel.recv()
        configure_log(setup.config.hydra.hydra_logging, setup.config.hydra.verbose)
        channel.send(_run(setup, task, order.number, order.overrides))


def _run(setup: Setup, task: Callable[..., Any], number: int, overrides: Sequence[str]) -> Answer:
    """Makes one run, as Hydra's own launcher does."""
    from hydra.core.utils import JobStatus, run_job
    from omegaconf import open_dict

    config = setup.context.config_loader.load_sweep_config(setup.config, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    done = run_job(
        hydra_context=setup.context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    # neither Hydra's record of a run nor every exception can cross to another process
    if done.status is JobStatus.FAILED:
        return Answer(None, "".join(traceback.format_exception(done._return_value)))
    return Answer(done.return_value)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # winding up torch and its threads takes seconds
