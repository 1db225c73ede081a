# SPDX-License-Identifier: GPL-2.0
"""Errors that are not the fault of a cell. The message is the one line that the user sees."""


class MatrixError(Exception):
    """An error that ends the run; status is the exit status of ./matrix/run."""

    status = 1


class WrongUse(MatrixError):
    """The request is invalid: unknown cell, kernel tree of another version, …"""

    status = 2


class MachineError(MatrixError):
    """The machine lacks something: a tool, network, disk space."""

    status = 3


DISK_FULL = "disk full: free some space (make clean removes the build folder) and start again"
