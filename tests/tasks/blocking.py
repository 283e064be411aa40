"""What a handler gives to a child process: it imports this module, without Django."""

import os
import threading
from pathlib import Path


def tell_and_sleep(path: str) -> None:
    """Write the number of this process, and do not come back."""
    Path(path).write_text(str(os.getpid()))
    threading.Event().wait(60)
