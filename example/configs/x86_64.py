# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# Under TCG on a busy host the TSC can't be calibrated, and the timer interrupt may
# seem to be missing: take any frequency, and don't check.
QEMU_ARCH = QemuArchParams(linux_arch='x86_64',
			   kconfig='''
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y''',
			   qemu_arch='x86_64',
			   kernel_path='arch/x86/boot/bzImage',
			   kernel_command_line='console=ttyS0 tsc_early_khz=2500000 no_timer_check',
			   extra_qemu_params=['-bios', 'qboot.rom'])
