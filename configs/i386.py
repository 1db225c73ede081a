# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# For builds only.
QEMU_ARCH = QemuArchParams(linux_arch='i386',
			   kconfig='',
			   qemu_arch='i386',
			   kernel_path='arch/x86/boot/bzImage',
			   kernel_command_line='',
			   extra_qemu_params=[])
