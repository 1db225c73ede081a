# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# KVM needs EL2, which the virt machine offers only on request.  The architected
# algorithm of pointer authentication is most of the work when emulated.  Of the
# hugepages of 32M that 16K pages make there are too few in kunit.py's 1024M, half of
# which is each of the two nodes: some pages of each, cached per CPU, and one fails.
QEMU_ARCH = QemuArchParams(linux_arch='arm64',
			   kconfig='''
CONFIG_SERIAL_AMBA_PL011=y
CONFIG_SERIAL_AMBA_PL011_CONSOLE=y''',
			   qemu_arch='aarch64',
			   kernel_path='arch/arm64/boot/Image',
			   kernel_command_line='console=ttyAMA0 numa=fake=2',
			   extra_qemu_params=['-machine', 'virt,virtualization=on,gic-version=3',
					      '-cpu', 'max,pauth-impdef=on', '-smp', '2',
					      '-m', '2048'])
