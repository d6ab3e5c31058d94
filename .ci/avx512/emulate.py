"""Runs a static x86-64 Linux program under Bochs; see `run`.

usage: emulate.py DIR PROGRAM [ARGUMENT...]

DIR holds what `setup` made. Bochs starts with all of memory in place: the kernel, a file system of
the program and init.c, and one piece with what a boot loader would have left. What init.c writes to
Bochs' port 0xE9 is Bochs' stdout.
"""

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time

# A Skylake server: the AVX-512 that this crate uses and nothing newer, so that a program that uses
# more gets SIGILL.
CPU = "corei7_skylake_x"
MEMORY_MIB = 1024
INSTRUCTIONS_PER_SECOND = 100_000_000  # of the guest's clock

# rom.S knows these.
BOOT = 0x10000
PAGE_TABLES = 0x11000
BOOT_PARAMETERS = 0x18000
COMMAND_LINE = 0x19000
BOOT_END = 0x1A000

FILE_SYSTEM = 128 << 20  # unpack_kernel.py keeps the kernel below it

KERNEL_ARGUMENTS = (
    "console=ttyS0,115200 8250.nr_uarts=1 acpi=off pci=off noapic nosmp nokaslr mitigations=off "
    # Measuring the clock against emulated timers takes long and goes wrong.
    f"tsc=reliable tsc_early_khz={INSTRUCTIONS_PER_SECOND // 1000} no_timer_check "
    f"lpj={INSTRUCTIONS_PER_SECOND // 250} "
    # What takes long while booting and is of no use here.
    "nowatchdog random.trust_cpu=on init_on_alloc=0 cryptomgr.notests kfence.sample_interval=0 "
    "initcall_blacklist=trace_eval_init,cubictcp_register,init_kprobe_trace,"
    "load_system_certificate_list,init_evm "
    "panic=-1 reboot=t "
)

BOCHS_CONFIGURATION = """\
display_library: nogui
config_interface: textconfig
memory: guest={memory}, host={memory}
romimage: file="{dir}/rom.bin", address=0xffff0000
vgaromimage: file="{dir}/vga.bin"
optramimage1: file="{work}/boot.bin", address={boot:#x}
optramimage2: file="{dir}/kernel.bin", address={kernel:#x}
optramimage3: file="{work}/files.cpio", address={files:#x}
cpu: model={cpu}, count=1, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none, time0=utc
pci: enabled=0
vga: extension=none, update_freq=1, realtime=0
ata0: enabled=0
ata1: enabled=0
floppy_bootsig_check: disabled=1
boot: floppy
com1: enabled=1, mode=file, dev="{work}/kernel.log"
port_e9_hack: enabled=1
speaker: enabled=0
private_colormap: enabled=0
log: "{work}/bochs.log"
debug: action=ignore
info: action=ignore
error: action=ignore
panic: action=fatal
"""


class Stopped(Exception):
    """A signal, SIGALRM for the time limit among them."""


class EmulatorFailed(Exception):
    """The emulator ended before the program did."""


def stop(number, _frame):
    raise Stopped(number)


def cpio(files):
    """An archive in the format "newc": initramfs/buffer-format.rst of the kernel."""

    def pad(data):
        return data + bytes(-len(data) % 4)

    archive = b""
    for inode, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")]):
        name = name.encode() + b"\0"
        fields = [inode, 0o100755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields)
        archive += pad(head + name) + pad(data)
    return archive


def strings(values):
    return b"".join(os.fsencode(value) + b"\0" for value in values)


def file_system(directory, program, arguments):
    environment = {"PATH": "/", "HOME": "/tmp", "TMPDIR": "/tmp", "RUST_TEST_THREADS": "1"}
    environment.update({key: os.environ[key] for key in os.environ if key.startswith("RUST")})
    return cpio({
        "init": (directory / "init").read_bytes(),
        "program": pathlib.Path(program).read_bytes(),
        "arguments": strings([program, *arguments]),
        "environment": strings(f"{key}={value}" for key, value in environment.items()),
    })


def boot_loader_data(kernel, files_size, command_line):
    """What a boot loader leaves in memory for rom.S and the kernel: arch/x86/boot.rst and
    arch/x86/zero-page.rst of the kernel."""
    memory = bytearray(BOOT_END - BOOT)

    def put(pattern, address, *values):
        struct.pack_into("<" + pattern, memory, address - BOOT, *values)

    # The global descriptor table: 64-bit code and flat data.
    put("QQ", BOOT + 0x10, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
    put("Q", BOOT + 0x100, kernel["entry"])

    # Page tables of three levels, which map the lowest 4 GiB to themselves in pages of 2 MiB.
    put("Q", PAGE_TABLES, PAGE_TABLES + 0x1000 | 3)
    put("4Q", PAGE_TABLES + 0x1000, *(PAGE_TABLES + 0x2000 + 0x1000 * i | 3 for i in range(4)))
    put("2048Q", PAGE_TABLES + 0x2000, *(i << 21 | 0x83 for i in range(2048)))

    header = bytes.fromhex(kernel["header"])
    put(f"{len(header)}s", BOOT_PARAMETERS + 0x1F1, header)
    put("B", BOOT_PARAMETERS + 0x210, 0xFF)  # the loader's kind: none of the known ones
    put("B", BOOT_PARAMETERS + 0x211, header[0x211 - 0x1F1] | 1)  # the kernel is loaded high
    put("II", BOOT_PARAMETERS + 0x218, FILE_SYSTEM, files_size)
    put("I", BOOT_PARAMETERS + 0x228, COMMAND_LINE)
    usable, reserved = 1, 2
    end_of_memory = MEMORY_MIB << 20
    ranges = [
        (0, 0x9F000, usable),
        (0x9F000, 0x100000, reserved),
        (0x100000, end_of_memory, usable),
    ]
    put("B", BOOT_PARAMETERS + 0x1E8, len(ranges))
    for index, (begin, end, kind) in enumerate(ranges):
        put("QQI", BOOT_PARAMETERS + 0x2D0 + 20 * index, begin, end - begin, kind)

    put(f"{len(command_line)}s", COMMAND_LINE, command_line.encode())
    return memory


def prepare(directory, work, verbose, program, arguments):
    """Writes everything that Bochs reads; gives the path of its configuration."""
    kernel = json.loads((directory / "kernel.json").read_text())
    files = file_system(directory, program, arguments)
    # As much again for the unpacked files, and something to work with.
    if FILE_SYSTEM + 2 * len(files) + (128 << 20) > MEMORY_MIB << 20:
        raise OSError(f"{program} is too large")
    command_line = KERNEL_ARGUMENTS + ("ignore_loglevel" if verbose else "quiet loglevel=4")
    (work / "files.cpio").write_bytes(files)
    (work / "boot.bin").write_bytes(boot_loader_data(kernel, len(files), command_line))
    configuration = work / "bochsrc"
    configuration.write_text(
        BOCHS_CONFIGURATION.format(
            dir=directory,
            work=work,
            memory=MEMORY_MIB,
            boot=BOOT,
            kernel=kernel["address"],
            files=FILE_SYSTEM,
            cpu=CPU,
            ips=INSTRUCTIONS_PER_SECOND,
        )
    )
    return configuration


def wait_for_start(stream):
    for line in stream:
        if line == b"The program starts.\n":
            return
    raise EmulatorFailed


def forward(stream):
    """Writes out what the program writes, until it ends; gives its exit status."""
    while True:
        head = stream.read(3)
        if len(head) < 3:
            raise EmulatorFailed
        kind, length = struct.unpack("<cH", head)
        data = stream.read(length)
        if kind == b"X":
            return data[0]
        output = sys.stdout.buffer if kind == b"O" else sys.stderr.buffer
        output.write(data)
        output.flush()


def show_logs(work):
    for name in ["bochs.err", "bochs.log", "kernel.log"]:
        log = work / name
        text = log.read_text(errors="replace") if log.exists() else ""
        print(f"--- {name}\n{text}", file=sys.stderr)


def emulate(directory, work, program, arguments):
    verbose = bool(os.environ.get("VERBOSE"))
    configuration = prepare(directory, work, verbose, program, arguments)
    begin = time.monotonic()
    with open(work / "bochs.err", "wb") as errors:
        bochs = subprocess.Popen(
            # Bochs must not live on if this process is killed.
            ["setpriv", "--pdeathsig", "KILL", directory / "bochs", "-q", "-f", configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        wait_for_start(bochs.stdout)
        start = time.monotonic()
        status = forward(bochs.stdout)
        if verbose:
            booting, running = start - begin, time.monotonic() - start
            print(f"emulate: booted in {booting:.1f} s, ran {running:.1f} s", file=sys.stderr)
        return status
    except EmulatorFailed:
        verbose = True
        print("emulate: the emulator ended before the program", file=sys.stderr)
        return 125
    finally:
        bochs.kill()
        bochs.wait()
        if verbose:
            show_logs(work)


def main(directory, program, *arguments):
    for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM]:
        signal.signal(number, stop)
    timeout = int(os.environ.get("TIMEOUT") or 0)
    signal.alarm(timeout)
    try:
        with tempfile.TemporaryDirectory(prefix="normdrop-avx512-") as work:
            return emulate(pathlib.Path(directory), pathlib.Path(work), program, arguments)
    except Stopped as stopped:
        number = stopped.args[0]
        if number != signal.SIGALRM:
            return 128 + number
        print(f"emulate: not finished after {timeout} s", file=sys.stderr)
        return 124
    except OSError as error:
        print(f"emulate: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
