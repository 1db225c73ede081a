# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# TCG's "max" CPU emulates SVM and nested paging, without which kvm_amd does not load
# and guest_memfd never initializes.  TCG emulates "rep stosb" byte by byte; without
# ERMS and FSRM, the kernel clears memory in larger steps.  On a busy host, the kernel
# can fail to calibrate the TSC against the PIT.  There is no other clock, and KVM then
# has no TSC frequency for its guests, so set one.  Any value works, as there is no
# reference.  For the same reason, the check for a missing timer interrupt can panic.
QEMU_ARCH = QemuArchParams(linux_arch='x86_64',
			   kconfig='''
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y''',
			   qemu_arch='x86_64',
			   kernel_path='arch/x86/boot/bzImage',
			   kernel_command_line='console=ttyS0 numa=fake=2 tsc_early_khz=2500000 no_timer_check',
			   extra_qemu_params=['-bios', 'qboot.rom', '-cpu', 'max,-erms,-fsrm', '-smp', '2'])
