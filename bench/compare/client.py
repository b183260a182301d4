"""The load generator, and what it says."""

import json
import os
import subprocess

from .processes import end_with_parent


class Failed(Exception):
    """The load generator did not do what it was asked."""


class Client:
    """The load generator, one process for each command."""

    def __init__(self, program):
        self.program = program

    def call(self, *arguments, timeout, niceness=0):
        """The figures of one command."""
        command = [str(part) for part in (self.program, *arguments)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, preexec_fn=lambda: prepare(niceness)
            )
        except subprocess.TimeoutExpired as expired:
            raise Failed(f"load {arguments[0]} hung for {timeout:.0f} s") from expired
        if done.returncode != 0:
            raise Failed(done.stderr.strip()[-600:] or f"load {arguments[0]} ended with {done.returncode}")
        return json.loads(done.stdout)

    def begin(self, *arguments):
        """Starts a command that is told when to end."""
        return Running([str(part) for part in (self.program, *arguments)])


class Running:
    """A command of the load generator that listens to its standard input."""

    def __init__(self, command):
        self.name = command[1]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=end_with_parent,
        )  # fmt: skip

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self, timeout):
        """Ends its input, and gives the figures."""
        try:
            output, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            raise Failed(f"load {self.name} hung for {timeout:.0f} s") from expired
        if self.process.returncode != 0:
            raise Failed(errors.strip()[-600:] or f"load {self.name} ended with {self.process.returncode}")
        return json.loads(output)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def prepare(niceness):
    """In the child."""
    end_with_parent()
    os.nice(niceness)
