# SPDX-License-Identifier: GPL-2.0
from ..qemu_config import QemuArchParams

# KVM needs EL2, which the virt machine provides only on request.  pauth-impdef avoids
# the architected pointer authentication algorithm, which dominates emulation time.
# kunit.py's 1024M is too little for the 32M hugepages of 16K pages: it gives each of
# the two nodes only sixteen, and an allocation may find none of them free.
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
