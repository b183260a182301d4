"""A client's program that runs beside the test, and what it prints."""

import signal
import subprocess
import threading

# Seconds in which a program must have ended that was told to.
_PATIENCE = 240.0


class Running:
    """A program that runs until it is ended; `lines` is what it has printed, `log` what it complained of."""

    def __init__(self, command, each=None):
        """`each` is called with every line, which is not kept then."""
        self.lines, self.log = [], []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._threads = [
            threading.Thread(target=self._keep, args=(self._process.stdout, each or self.lines.append)),
            threading.Thread(target=self._keep, args=(self._process.stderr, self.log.append)),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _keep(stream, keep):
        for line in stream:
            keep(line.rstrip("\n"))

    def has_ended(self):
        """Whether the program is gone, for whatever reason."""
        return self._process.poll() is not None

    def pause(self):
        """SIGSTOP: it stands still, its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        """SIGCONT: it goes on and knows nothing of the time between."""
        self._process.send_signal(signal.SIGCONT)

    def end(self):
        """Ends it in order; returns whether it did. Everything it printed has been kept then."""
        self._process.terminate()
        # One that stands still would never hear of it.
        self.resume()
        try:
            self._process.wait(_PATIENCE)
            in_order = True
        except subprocess.TimeoutExpired:
            self._process.kill()
            in_order = False
        self._reap()
        return in_order

    def kill(self):
        """kill -9; returns when it is gone and everything it printed has been kept."""
        self._process.kill()
        self._reap()

    def _reap(self):
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()
