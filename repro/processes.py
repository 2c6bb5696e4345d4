"""Processes that end with the one that started them, so that no orphan writes on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import psutil


def die_with(ancestor: int) -> None:
    """End this process when its parent dies, or when the process `ancestor` further up does."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(ancestor):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
