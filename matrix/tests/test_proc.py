# SPDX-License-Identifier: GPL-2.0
"""Test that all children end in time, and that their output is kept."""

import os
import signal
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from matrix.common import proc
from matrix.common.errors import MachineError


def alive(pid: int) -> bool:
    """Whether pid is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Wait until pid has ended, which may take a while after SIGKILL on a busy machine; return whether it has."""
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


class Proc(unittest.TestCase):
    """proc.run() and proc.stop_all()."""

    def setUp(self) -> None:
        self.dir = Path(self.enterContext(tempfile.TemporaryDirectory()))  # pylint: disable=consider-using-with

    def test_output_and_status(self) -> None:
        """stdout and stderr are returned in order, with the exit status."""
        done = proc.run(["sh", "-c", "echo a; echo b >&2; exit 3"], limit=10)
        self.assertEqual((done.output, done.returncode, done.timed_out), ("a\nb\n", 3, False))

    def test_log_is_appended(self) -> None:
        """Output is appended to a log."""
        log = self.dir / "log"
        for word in ("one", "two"):
            self.assertEqual(proc.run(["echo", word], log=log, limit=10).output, "")
        self.assertEqual(log.read_text(), "one\ntwo\n")

    def test_limit_kills_the_group(self) -> None:
        """A child that ignores SIGTERM, and its own child, are killed after the limit."""
        script = f"trap '' TERM; sleep 60 & echo $! > {self.dir}/pid; echo $$ >> {self.dir}/pid; wait; sleep 60"
        with mock.patch.object(proc, "GRACE", 0.2):
            done = proc.run(["sh", "-c", script], limit=3)
        self.assertTrue(done.timed_out)
        for pid in (self.dir / "pid").read_text().split():
            self.assertTrue(gone(int(pid)), pid)

    def test_until(self) -> None:
        """When until() returns true, the child is killed with its process group, without a timeout; it may also end by itself."""
        log = self.dir / "log"
        script = "echo begun; sleep 60 & echo $!; wait"
        done = proc.run(["sh", "-c", script], log=log, limit=50, until=lambda: log.read_text().count("\n") == 2)
        self.assertEqual((done.timed_out, done.returncode), (False, -signal.SIGTERM))
        self.assertTrue(gone(int(log.read_text().split()[1])))
        self.assertEqual(proc.run(["sh", "-c", "exit 3"], limit=50, until=lambda: False).returncode, 3)
        self.assertTrue(proc.run(["sleep", "60"], limit=0.3, until=lambda: False).timed_out)

    def test_missing_program(self) -> None:
        """A missing program is an error that says what to do."""
        with self.assertRaisesRegex(MachineError, "no-such-tool: not found; run tools/setup"):
            proc.run(["no-such-tool"], limit=1)

    def test_disk_full(self) -> None:
        """A child that fails because the disk is full is the machine's fault, not the cell's."""
        with self.assertRaisesRegex(MachineError, "disk full"):
            proc.run(["sh", "-c", "echo 'ld: final link failed: No space left on device'; exit 1"], limit=9)
        self.assertEqual(proc.run(["echo", "No space left on device"], limit=9).returncode, 0)

    def test_test_with_full_disk(self) -> None:
        """A test that says so in the kernel under test is not the machine's fault, nor what an earlier child has said."""
        said = "    # some_test.c: write() failed, errno: 28 (No space left on device)"
        self.assertEqual(proc.run(["sh", "-c", f"echo '{said}'; exit 1"], limit=9).returncode, 1)
        log = self.dir / "log"
        log.write_text("No space left on device\n")
        self.assertEqual(proc.run(["false"], log=log, limit=9).returncode, 1)

    def test_killed_child(self) -> None:
        """What a child that was killed has started is killed, too."""
        done = proc.run(["sh", "-c", "sleep 60 >&- 2>&- & echo $!; kill -9 $$"], limit=9)
        self.assertEqual(done.returncode, -signal.SIGKILL)
        self.assertTrue(gone(int(done.output)))

    def test_full_log(self) -> None:
        """A log that cannot be written because the disk is full is an error of the machine."""
        with self.assertRaisesRegex(MachineError, "disk full"), mock.patch(
            "subprocess.Popen", side_effect=OSError(28, "No space left on device")
        ):
            proc.run(["true"], limit=1)

    def test_stream(self) -> None:
        """Each line is passed on when it comes; the status is that of the child."""
        lines: list[str] = []
        self.assertEqual(proc.stream(["sh", "-c", "echo a; echo b >&2; exit 3"], lines.append, limit=10), 3)
        self.assertEqual(lines, ["a", "b"])

    def test_stream_ends(self) -> None:
        """At the limit, or if this program is interrupted, the child ends with its group, and may end its own children before."""
        script = f"trap 'echo ended > {self.dir}/said; exit 1' TERM; sleep 60 & echo $!; wait"
        pids: list[str] = []
        self.assertEqual(proc.stream(["sh", "-c", script], pids.append, limit=1), 1)

        def interrupted(line: str) -> None:
            pids.append(line)
            raise KeyboardInterrupt

        self.assertEqual((self.dir / "said").read_text(), "ended\n")
        (self.dir / "said").unlink()
        with self.assertRaises(KeyboardInterrupt):
            proc.stream(["sh", "-c", script], interrupted, limit=60)
        self.assertEqual((self.dir / "said").read_text(), "ended\n")
        for pid in pids:
            self.assertTrue(gone(int(pid)), pid)

    def test_stop_all(self) -> None:
        """stop_all() ends the children of other threads, which then get KeyboardInterrupt."""
        caught = []

        def work() -> None:
            try:
                proc.run(["sh", "-c", f"echo $$ > {self.dir}/pid; trap '' TERM; sleep 60"], limit=60)
            except KeyboardInterrupt:
                caught.append(1)

        self.addCleanup(proc._stopping.clear)  # pylint: disable=protected-access
        thread = threading.Thread(target=work)
        thread.start()
        while not (self.dir / "pid").exists() or not (self.dir / "pid").read_text():
            time.sleep(0.01)
        with mock.patch.object(proc, "GRACE", 0.2):
            proc.stop_all()
        thread.join(10)
        self.assertEqual(caught, [1])
        self.assertTrue(gone(int((self.dir / "pid").read_text())))
        with self.assertRaises(KeyboardInterrupt):
            proc.run(["true"], limit=1)

    def test_kept_open(self) -> None:
        """A child inherits the descriptor only within kept_open()."""
        descriptor = os.open(self.dir / "lock", os.O_CREAT | os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        argv = ["ls", f"/proc/self/fd/{descriptor}"]
        with proc.kept_open(descriptor):
            self.assertEqual(proc.run(argv, limit=5).returncode, 0)
        self.assertNotEqual(proc.run(argv, limit=5).returncode, 0)


if __name__ == "__main__":
    unittest.main()
