# SPDX-License-Identifier: GPL-2.0
"""What can go wrong outside a cell. The message is the one line that the user reads."""


class MatrixError(Exception):
    """Ends the run; status is the exit status of ./matrix/run."""

    status = 1


class WrongUse(MatrixError):
    """The user asked for something that cannot be: unknown cell, tree of another version, …"""

    status = 2


class MachineError(MatrixError):
    """The machine cannot do it: tool missing, no network, disk full."""

    status = 3


DISK_FULL = "disk full: free some space (make clean removes the build folder) and start again"
