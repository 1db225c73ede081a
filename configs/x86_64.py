# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# SVM and nested paging are emulated by TCG's "max" CPU; without them kvm_amd
# does not load and guest_memfd never initialises.  "rep stosb" is emulated byte by
# byte; without ERMS and FSRM the kernel clears memory in larger steps.  On a busy
# host the TSC can't be calibrated against the PIT, there is no other clock, and KVM
# has no TSC frequency to give to its guests; any will do, for there is none to compare.
# For the same reason the timer interrupt may seem to be missing, which is a panic.
QEMU_ARCH = QemuArchParams(linux_arch='x86_64',
			   kconfig='''
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y''',
			   qemu_arch='x86_64',
			   kernel_path='arch/x86/boot/bzImage',
			   kernel_command_line='console=ttyS0 numa=fake=2 tsc_early_khz=2500000 no_timer_check',
			   extra_qemu_params=['-bios', 'qboot.rom', '-cpu', 'max,-erms,-fsrm', '-smp', '2'])
