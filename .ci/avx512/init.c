// The first and only process of the emulated machine but for the program itself: runs /program with
// /arguments and /environment, and sends its output and exit status to emulate.py.
//
// The way out is Bochs' debugging port 0xE9, whose bytes are Bochs' stdout: first a line that says
// that the program starts, then frames of a type, a length of 16 bits and as many bytes. Types: O
// is stdout, E is stderr, X is the exit status.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void send(const void *bytes, size_t count) {
    __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(count) : "d"(0xe9) : "memory");
}

static void send_frame(char type, const void *bytes, unsigned count) {
    unsigned char head[3] = {type, count & 0xff, count >> 8};
    send(head, sizeof head);
    send(bytes, count);
}

static void finish(unsigned char status) {
    send_frame('X', &status, 1);
    // emulate.py ends the emulator.
    for (;;)
        pause();
}

static void fail(const char *what) {
    char message[200];
    int length = snprintf(message, sizeof message, "init: %s: %s\n", what, strerror(errno));
    send_frame('E', message, length);
    finish(125);
}

// Reads a file of strings, each with a zero at its end, into a list for execve.
static void read_strings(const char *path, char *text, size_t size, char **list, size_t most) {
    int file = open(path, O_RDONLY);
    ssize_t length = file < 0 ? -1 : read(file, text, size);
    if (length < 0)
        fail(path);
    close(file);
    for (char *string = text; string < text + length && most > 1; most--) {
        *list++ = string;
        string += strlen(string) + 1;
    }
    *list = NULL;
}

static pid_t start(int out, int err) {
    static char argument_text[1 << 17], environment_text[1 << 17];
    static char *arguments[1 << 12], *environment[1 << 12];
    read_strings("/arguments", argument_text, sizeof argument_text, arguments, 1 << 12);
    read_strings("/environment", environment_text, sizeof environment_text, environment, 1 << 12);
    pid_t program = fork();
    if (program < 0)
        fail("fork");
    if (program > 0)
        return program;
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(out, 1);
    dup2(err, 2);
    // The ports are init's alone.
    if (iopl(0) || chdir("/tmp"))
        _exit(125);
    execve("/program", arguments, environment);
    dprintf(2, "init: the program cannot be executed: %s\n", strerror(errno));
    _exit(127);
}

// Sends what the program writes until it has closed both its outputs.
static void forward(int out, int err) {
    static char buffer[1 << 15];
    struct pollfd outputs[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    int open_outputs = 2;
    while (open_outputs > 0) {
        poll(outputs, 2, -1);
        for (int i = 0; i < 2; i++) {
            if (outputs[i].fd < 0 || !outputs[i].revents)
                continue;
            ssize_t count = read(outputs[i].fd, buffer, sizeof buffer);
            if (count > 0) {
                send_frame("OE"[i], buffer, count);
            } else {
                outputs[i].fd = -1;
                open_outputs--;
            }
        }
    }
}

int main(void) {
    if (iopl(3))
        return 1;
    send("\nThe program starts.\n", 21);
    mkdir("/proc", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("dev", "/dev", "devtmpfs", 0, NULL))
        fail("mount");
    mkdir("/tmp", 01777);
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
        fail("pipe2");
    pid_t program = start(out[1], err[1]);
    close(out[1]);
    close(err[1]);
    forward(out[0], err[0]);
    int status;
    if (waitpid(program, &status, 0) < 0)
        fail("waitpid");
    finish(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
