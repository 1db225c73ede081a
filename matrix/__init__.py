# SPDX-License-Identifier: GPL-2.0
"""The matrix: builds, boots and judges one kernel per cell."""
