"""The disks of the nodes: image files on loop devices, all copied at one moment.

The images lie in an outer xfs, itself on a loop device, because xfs can share blocks between files: a copy
of an image is one system call that holds the image's lock, so that it shows the image as it was at one
moment, and takes milliseconds. What a node's file system has not written to its device by then (its page
cache) is not in the copy, as after a power cut.
"""

import os
import subprocess
import time
from pathlib import Path

# xfs wants 300 MB. The files have holes: what is not written takes no space.
DISK_BYTES = 320 << 20
OUTER_BYTES = 16 << 30
_PATIENCE = 20.0

_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q"],
}


def run(*command):
    """Runs a command; its output is the error's text where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


class _Mounts:
    """What is mounted; undone in reverse order, whatever happened."""

    def __init__(self):
        self._mounted = []

    def mount(self, image, place):
        """Mounts an image file. The loop device detaches itself when it is unmounted."""
        place.mkdir(parents=True, exist_ok=True)
        run("mount", "-o", "loop", image, place)
        self._mounted.append(place)

    def unmount_all(self):
        deadline = time.monotonic() + _PATIENCE
        while self._mounted:
            try:
                run("umount", self._mounted[-1])
            except RuntimeError:
                # The kernel lets go of a killed process's mounts and loop devices a moment later.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
                continue
            self._mounted.pop()


class Disks:
    """One file system for each name, mounted at `places/NAME`."""

    def __init__(self, folder, places, names, file_system):
        self._names = names
        self._places = places
        self._images = folder / "images"
        self._file_system = file_system
        self._outer = _Mounts()
        self._inner = _Mounts()
        outer = folder / "outer.img"
        _hole(outer, OUTER_BYTES)
        run("mkfs.xfs", "-q", "-m", "reflink=1", outer)
        self._outer.mount(outer, self._images)
        for name in names:
            image = self._images / f"{name}.img"
            _hole(image, DISK_BYTES)
            run(*_MAKE[file_system], image)

    def mount(self):
        """Mounts every disk; a copy's journal is replayed by that."""
        for name in self._names:
            self._inner.mount(self._images / f"{name}.img", self._places / name)

    def copy(self):
        """Copies every image as it is at this moment, while it is mounted."""
        for name in self._names:
            image = self._images / f"{name}.img"
            run("cp", "--reflink=always", image, image.with_suffix(".copy"))

    def replace_by_copies(self):
        """The disks as they were when they were copied; what was written since is gone."""
        self._inner.unmount_all()
        for name in self._names:
            image = self._images / f"{name}.img"
            os.replace(image.with_suffix(".copy"), image)

    def needs_replay(self):
        """How many of the images, none of them mounted, have a journal that was not closed in order."""
        return sum(_dirty(self._images / f"{name}.img", self._file_system) for name in self._names)

    def close(self):
        """Unmounts and detaches everything."""
        self._inner.unmount_all()
        self._outer.unmount_all()


def _hole(path: Path, size):
    with open(path, "wb") as file:
        file.truncate(size)


def _dirty(image, file_system):
    if file_system == "ext4":
        return "needs_recovery" in run("dumpe2fs", "-h", image)
    done = subprocess.run(["xfs_logprint", "-t", image], capture_output=True, text=True, check=False)
    return "state: <DIRTY>" in done.stdout
