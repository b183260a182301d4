"""Processes of our own: started, watched and ended by their pid."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

PR_SET_PDEATHSIG = 1


def end_with_parent():
    """In the child: the kernel ends it when this program ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Ended(Exception):
    """A process that should run has ended."""


class Node:
    """One server process, whose output goes to a file."""

    def __init__(self, name, command, log):
        self.name, self.command, self.log = name, command, Path(log)
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,
            )
        self.pid = self.process.pid

    def check(self):
        if (code := self.process.poll()) is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise Ended(f"{self.name} ended with code {code}; its last lines:\n{tail}")

    def peak_memory_mib(self):
        """The most that was ever resident, in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise Ended(f"{self.name} has no memory any more")

    def kill_at_once(self):
        """kill -9, without waiting for the kernel to have taken the process apart."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def kill(self):
        """kill -9."""
        self.kill_at_once()
        self.process.wait()
