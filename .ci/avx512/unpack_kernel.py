"""Makes of a compressed kernel what emulate.py needs to start it without a boot loader.

usage: unpack_kernel.py VMLINUZ DIR

Writes DIR/kernel.bin, the kernel as it lies in memory, and DIR/kernel.json, where it lies.
"""

import json
import pathlib
import struct
import sys

# See Documentation/arch/x86/boot.rst of the kernel.
SETUP_HEADER = slice(0x1F1, 0x290)
LZ4_LEGACY = b"\x02\x21\x4c\x18"
PT_LOAD = 1

# emulate.py puts the initial file system here.
MEMORY_FOR_KERNEL = 128 << 20


def read(pattern, data, offset):
    return struct.unpack_from("<" + pattern, data, offset)[0]


def lz4_block(block):
    """Decompresses one block of LZ4 (lz4_Block_format.md)."""
    output = bytearray()
    position = 0

    def length(nibble):
        nonlocal position
        total = nibble
        more = nibble == 15
        while more:
            total += block[position]
            more = block[position] == 255
            position += 1
        return total

    while position < len(block):
        token = block[position]
        position += 1
        literals = length(token >> 4)
        output += block[position : position + literals]
        position += literals
        if position == len(block):
            break
        distance = read("H", block, position)
        position += 2
        remaining = length(token & 15) + 4
        # A match may overlap what it produces: then it repeats its last `distance` bytes.
        start = len(output) - distance
        while remaining > 0:
            copied = output[start : start + remaining]
            output += copied
            remaining -= len(copied)
    return output


def decompress(vmlinuz):
    """The ELF file inside a bzImage."""
    if vmlinuz[0x202:0x206] != b"HdrS":
        sys.exit("unpack_kernel: not a bzImage")
    setup_sectors = vmlinuz[0x1F1] or 4
    start = (setup_sectors + 1) * 512 + read("I", vmlinuz, 0x248)
    payload = vmlinuz[start : start + read("I", vmlinuz, 0x24C)]
    if not payload.startswith(LZ4_LEGACY):
        sys.exit("unpack_kernel: the kernel is not compressed with LZ4")
    blocks, size = payload[4:-4], read("I", payload, len(payload) - 4)
    elf = bytearray()
    position = 0
    while position < len(blocks):
        end = position + 4 + read("I", blocks, position)
        elf += lz4_block(blocks[position + 4 : end])
        position = end
    if len(elf) != size or not elf.startswith(b"\x7fELF"):
        sys.exit("unpack_kernel: the kernel is damaged")
    return elf


def main(vmlinuz, directory):
    vmlinuz = pathlib.Path(vmlinuz).read_bytes()
    elf = decompress(vmlinuz)
    entry, table = struct.unpack_from("<QQ", elf, 24)
    segments = [
        struct.unpack_from("<IIQQQQQ", elf, table + 56 * index)
        for index in range(read("H", elf, 56))
    ]
    segments = [segment for segment in segments if segment[0] == PT_LOAD]
    address = min(physical for _, _, _, _, physical, _, _ in segments)
    memory = bytearray()
    for _, _, offset, _, physical, size, _ in segments:
        begin = physical - address
        memory.extend(bytes(max(0, begin + size - len(memory))))
        memory[begin : begin + size] = elf[offset : offset + size]
    init_size = read("I", vmlinuz, 0x260)
    end = max([address + init_size] + [segment[4] + segment[6] for segment in segments])
    if end > MEMORY_FOR_KERNEL:
        sys.exit("unpack_kernel: the kernel is too large")

    directory = pathlib.Path(directory)
    (directory / "kernel.bin").write_bytes(memory)
    description = {"address": address, "entry": entry, "header": vmlinuz[SETUP_HEADER].hex()}
    (directory / "kernel.json").write_text(json.dumps(description))


if __name__ == "__main__":
    main(*sys.argv[1:])
