# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# For builds only.
QEMU_ARCH = QemuArchParams(linux_arch='riscv',
			   kconfig='',
			   qemu_arch='riscv64',
			   kernel_path='arch/riscv/boot/Image',
			   kernel_command_line='',
			   extra_qemu_params=[])
