"""`up` from its options to its exit code: lock, plan, supervise."""

import asyncio
import os

from apps.core.embedded import data_folder, plan, screen
from apps.core.embedded.catalogue import entries_of
from apps.core.embedded.data_folder import DataFolderError
from apps.core.embedded.ports import PortBusy
from apps.core.embedded.screen import say
from apps.core.embedded.service import Run, UpError
from apps.core.embedded.supervisor import Supervisor

EXIT_REFUSED = 2


def start(options: plan.Options) -> int:
    """Runs until stopped. 0: stopped by a signal. 1: something failed. 2: refused, nothing was started."""
    try:
        data_dir = data_folder.make(options.data_dir)
        with data_folder.locked(data_dir):
            (data_dir / data_folder.UP).unlink(missing_ok=True)  # of a run that was killed
            run = plan.make_run(options, data_dir)
            for name, variable in plan.OWN_URLS.items():
                if os.environ.get(variable):
                    say(f"{name} is not started: {variable} names yours")
            return asyncio.run(_supervise(run))
    except (DataFolderError, PortBusy, UpError) as error:
        say(str(error))
        return EXIT_REFUSED


async def _supervise(run: Run) -> int:
    return await Supervisor(run, entries_of(run.names), screen.show).run()
