/* A layer where a plain program does not use it: in a thread with a small stack, in another floating-point environment, in a
 * child of fork, in a library that was unloaded and loaded again, and in a second copy of the library. The same bits
 * everywhere.
 *
 * Usage: surroundings LIBRARY COPY COPY [TASKS]
 *
 * The program itself is linked with the library. LIBRARY is the shared library, of which two files become copies: these are
 * loaded and unloaded; their names have a slash. TASKS is 1 unless the libraries were built with the feature rayon. */

/* fork, the size of a stack, and the question whether a library is loaded. */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <fenv.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <normdrop.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

/* Enough for a call to be shared by two tasks; and few, for everything else. */
enum { SHARED = 1 << 20, FEW = 5 * 48 * 7, CHANNELS = 16, SMALL_STACK = 64 << 10 };

/* The functions of one copy of the library. */
typedef struct {
    normdrop_status (*layer_init)(normdrop_layer *, uint32_t);
    normdrop_status (*layer_lengths)(const normdrop_layer *, normdrop_lengths *, normdrop_error *);
    normdrop_status (*fill_mask)(const normdrop_layer *, uint64_t, normdrop_slice_mut_u8, normdrop_error *);
    normdrop_status (*train)(const normdrop_layer *, const normdrop_train_call *, normdrop_error *);
    normdrop_status (*eval)(const normdrop_layer *, const normdrop_eval_call *, normdrop_error *);
    normdrop_status (*backward)(const normdrop_layer *, const normdrop_backward_call *, normdrop_error *);
} library;

static const library linked = {
    normdrop_layer_init, normdrop_layer_lengths, normdrop_fill_mask, normdrop_train, normdrop_eval, normdrop_backward,
};

/* What a run needs, none of it on the stack of the thread that runs; and a digest of what it has written. */
typedef struct {
    library functions;
    size_t elements;
    uint32_t tasks;
    float *x, *y, *dx, *mean, *var, *saved_mean, *saved_tail;
    double *saved_inv_std, *scratch;
    uint8_t *mask;
    size_t scratch_len;
    uint64_t digest;
    int refused;
} problem;

static void fail(const char *what) {
    fprintf(stderr, "surroundings: %s\n", what);
    exit(1);
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fail("out of memory");
    }
    return memory;
}

static normdrop_layer layer_of(const problem *of, uint32_t activation) {
    normdrop_layer layer;
    if (of->functions.layer_init(&layer, NORMDROP_ABI_VERSION) != NORMDROP_STATUS_OK) {
        fail("no layer");
    }
    layer.activation = activation;
    layer.outer = 5;
    layer.channels = CHANNELS;
    layer.inner = of->elements / layer.outer / layer.channels;
    layer.p = 0.25;
    layer.tasks = of->tasks;
    return layer;
}

static problem make(library functions, size_t elements, uint32_t tasks) {
    normdrop_lengths lengths;
    normdrop_layer layer;
    problem made;
    size_t i;
    memset(&made, 0, sizeof made);
    memset(&lengths, 0, sizeof lengths);
    made.functions = functions;
    made.elements = elements / (5 * CHANNELS) * 5 * CHANNELS;
    made.tasks = tasks;
    layer = layer_of(&made, NORMDROP_ACTIVATION_RELU);
    lengths.version = NORMDROP_ABI_VERSION;
    if (functions.layer_lengths(&layer, &lengths, NULL) != NORMDROP_STATUS_OK || lengths.elements != made.elements) {
        fail("no lengths: are there threads in this library?");
    }
    made.x = (float *)room(made.elements, sizeof(float));
    made.y = (float *)room(made.elements, sizeof(float));
    made.dx = (float *)room(made.elements, sizeof(float));
    made.mean = (float *)room(CHANNELS, sizeof(float));
    made.var = (float *)room(CHANNELS, sizeof(float));
    made.saved_mean = (float *)room(CHANNELS, sizeof(float));
    made.saved_tail = (float *)room(CHANNELS, sizeof(float));
    made.saved_inv_std = (double *)room(CHANNELS, sizeof(double));
    made.scratch = (double *)room(lengths.scratch + 1, sizeof(double));
    made.mask = (uint8_t *)room(lengths.mask, 1);
    made.scratch_len = lengths.scratch;
    for (i = 0; i < made.elements; i++) {
        made.x[i] = (float)((i * 2654435761u) % 4093) / 1024.0f - (float)(i % 11);
    }
    return made;
}

static void unmake(problem *of) {
    free(of->x), free(of->y), free(of->dx), free(of->mean), free(of->var);
    free(of->saved_mean), free(of->saved_tail), free(of->saved_inv_std), free(of->scratch), free(of->mask);
}

/* FNV-1a. */
static void add(problem *of, const void *memory, size_t bytes) {
    const unsigned char *byte = (const unsigned char *)memory, *end = byte + bytes;
    for (; byte != end; byte++) {
        of->digest = (of->digest ^ *byte) * 1099511628211u;
    }
}

#define SLICE(slice, pointer, length) ((slice).values = (pointer), (slice).len = (length))

/* Training, its gradient and evaluation, with every activation. */
static void *run(void *argument) {
    problem *of = (problem *)argument;
    size_t few = CHANNELS, len = of->elements;
    uint32_t activation, c;
    of->digest = 14695981039346656037u;
    for (activation = NORMDROP_ACTIVATION_IDENTITY; activation <= NORMDROP_ACTIVATION_SOFTPLUS; activation++) {
        const normdrop_layer layer = layer_of(of, activation);
        normdrop_train_call train;
        normdrop_backward_call backward;
        normdrop_eval_call eval;
        normdrop_slice_mut_u8 mask;
        memset(&train, 0, sizeof train);
        memset(&backward, 0, sizeof backward);
        memset(&eval, 0, sizeof eval);
        train.version = backward.version = eval.version = NORMDROP_ABI_VERSION;
        for (c = 0; c < CHANNELS; c++) {
            of->mean[c] = 0.0f;
            of->var[c] = 1.0f;
        }
        SLICE(mask, of->mask, (len + 7) / 8);
        SLICE(train.running_mean, of->mean, few);
        SLICE(train.running_var, of->var, few);
        SLICE(train.mask, of->mask, mask.len);
        SLICE(train.input, of->x, len);
        SLICE(train.output, of->y, len);
        SLICE(train.saved_mean, of->saved_mean, few);
        SLICE(train.saved_mean_tail, of->saved_tail, few);
        SLICE(train.saved_inv_std, of->saved_inv_std, few);
        SLICE(train.scratch, of->scratch, of->scratch_len);
        of->refused |= of->functions.fill_mask(&layer, 7, mask, NULL) | of->functions.train(&layer, &train, NULL);
        add(of, of->y, len * sizeof(float));
        SLICE(backward.saved_mean, of->saved_mean, few);
        SLICE(backward.saved_mean_tail, of->saved_tail, few);
        SLICE(backward.saved_inv_std, of->saved_inv_std, few);
        SLICE(backward.mask, of->mask, mask.len);
        SLICE(backward.input, of->x, len);
        SLICE(backward.grad_output, of->y, len);
        SLICE(backward.grad_input, of->dx, len);
        SLICE(backward.scratch, of->scratch, of->scratch_len);
        of->refused |= of->functions.backward(&layer, &backward, NULL);
        add(of, of->dx, len * sizeof(float));
        SLICE(eval.running_mean, of->mean, few);
        SLICE(eval.running_var, of->var, few);
        SLICE(eval.input, of->x, len);
        SLICE(eval.output, of->y, len);
        SLICE(eval.scratch, of->scratch, of->scratch_len);
        of->refused |= of->functions.eval(&layer, &eval, NULL);
        add(of, of->y, len * sizeof(float));
    }
    return NULL;
}

static uint64_t digest(problem *of, const char *where) {
    run(of);
    if (of->refused != 0) {
        fail(where);
    }
    return of->digest;
}

static uint64_t digest_once(library functions, size_t elements, uint32_t tasks, const char *where) {
    problem made = make(functions, elements, tasks);
    uint64_t found = digest(&made, where);
    unmake(&made);
    return found;
}

static void check(int holds, const char *what) {
    if (!holds) {
        fail(what);
    }
    printf("surroundings: %s\n", what);
}

/* A thread with the smallest stack that this test asks of the library; the linker's and the C library's part are in it. */
static uint64_t on_a_small_stack(library functions) {
    problem made = make(functions, FEW, 1);
    pthread_attr_t attributes;
    pthread_t thread;
    size_t size = SMALL_STACK;
    if ((long)size < (long)PTHREAD_STACK_MIN) {
        size = (size_t)PTHREAD_STACK_MIN;
    }
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstacksize(&attributes, size) != 0 ||
        pthread_create(&thread, &attributes, run, &made) != 0 || pthread_join(thread, NULL) != 0 || made.refused != 0) {
        fail("no thread");
    }
    pthread_attr_destroy(&attributes);
    unmake(&made);
    return made.digest;
}

/* A caller that rounds otherwise, flushes subnormal numbers and traps what is not inexact; with tasks, on a pool that does not.
 * It is as before afterwards. */
static int in_other_environments(problem *of, uint64_t expected) {
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};
    size_t number;
    int same = 1;
    for (number = 0; number < sizeof modes / sizeof *modes; number++) {
        fenv_t before;
        uint64_t found;
        int mode, flags;
        if (fegetenv(&before) != 0) {
            return 0;
        }
        feclearexcept(FE_ALL_EXCEPT);
        feraiseexcept(FE_DIVBYZERO);
        fesetround(modes[number]);
#if defined(__SSE2__)
        {
            /* Flush-to-zero, denormals-are-zero; the masks of invalid operations, of divisions by zero and of overflows. */
            const unsigned hostile = (_mm_getcsr() | 0x8040u) & ~(1u << 7 | 1u << 9 | 1u << 10);
            _mm_setcsr(hostile);
            found = digest(of, "another environment");
            same &= _mm_getcsr() == hostile;
        }
#else
        found = digest(of, "another environment");
#endif
        mode = fegetround();
        flags = fetestexcept(FE_ALL_EXCEPT);
        fesetenv(&before);
        same &= found == expected && mode == modes[number];
        /* In the default environment a call may raise flags. */
        same &= flags == FE_DIVBYZERO || modes[number] == FE_TONEAREST;
    }
    return same;
}

/* Whether a child of fork comes to an end, with the digest that is expected. */
static int in_a_child(problem *of, uint64_t expected) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        alarm(120);
        run(of);
        _exit(of->refused == 0 && of->digest == expected ? 0 : 1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* POSIX says that a function fits the pointer that dlsym returns, where C does not. */
static void find(void *handle, const char *name, void *function) {
    void *found = dlsym(handle, name);
    if (found == NULL) {
        fail(name);
    }
    memcpy(function, &found, sizeof found);
}

static void *load(const char *path, library *functions) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        fail(dlerror());
    }
    find(handle, "normdrop_layer_init", &functions->layer_init);
    find(handle, "normdrop_layer_lengths", &functions->layer_lengths);
    find(handle, "normdrop_fill_mask", &functions->fill_mask);
    find(handle, "normdrop_train", &functions->train);
    find(handle, "normdrop_eval", &functions->eval);
    find(handle, "normdrop_backward", &functions->backward);
    return handle;
}

static void copy(const char *from, const char *to) {
    FILE *source = fopen(from, "rb"), *target = fopen(to, "wb");
    static char buffer[1 << 16];
    size_t bytes;
    if (source == NULL || target == NULL) {
        fail("the library cannot be copied");
    }
    while ((bytes = fread(buffer, 1, sizeof buffer, source)) > 0) {
        if (fwrite(buffer, 1, bytes, target) != bytes) {
            fail("the library cannot be copied");
        }
    }
    fclose(source);
    if (fclose(target) != 0) {
        fail("the library cannot be copied");
    }
}

int main(int count, char **arguments) {
    uint32_t tasks = count > 4 ? (uint32_t)strtoul(arguments[4], NULL, 10) : 1;
    library loaded, second;
    problem made;
    uint64_t few, many;
    void *handle, *other;
    if (count < 4) {
        fail("usage: surroundings LIBRARY COPY COPY [TASKS]");
    }
    few = digest_once(linked, FEW, 1, "linked");
    many = digest_once(linked, SHARED, 1, "linked");
    check(on_a_small_stack(linked) == few, "a thread with a stack of 64 KiB");

    /* The parent has used its threads, if it has any, and then there is a child. */
    check(digest_once(linked, SHARED, tasks, "tasks") == many, "the tasks that were asked for");
    made = make(linked, SHARED, tasks);
    check(in_a_child(&made, many), "a child of fork");
    check(digest(&made, "parent") == many, "its parent, afterwards");
    check(in_other_environments(&made, many), "other floating-point environments, as before afterwards");
    unmake(&made);

    copy(arguments[1], arguments[2]);
    copy(arguments[1], arguments[3]);
    handle = load(arguments[2], &loaded);
    check(digest_once(loaded, SHARED, tasks, "loaded") == many, "a library that is loaded");
    check(dlclose(handle) == 0, "unloaded");
#if defined(RTLD_NOLOAD) && defined(__GLIBC__)
    /* One with threads must stay, because they have their code there. */
    check((dlopen(arguments[2], RTLD_NOW | RTLD_NOLOAD) == NULL) == (tasks == 1), "out of memory unless it has threads");
#endif
    handle = load(arguments[2], &loaded);
    check(digest_once(loaded, SHARED, tasks, "again") == many, "and loaded again");

    other = load(arguments[3], &second);
    check(second.train != loaded.train && second.train != linked.train, "a copy of it is another library");
    check(digest_once(second, SHARED, tasks, "second") == many, "a second copy, beside the first");
    check(digest_once(loaded, SHARED, tasks, "first") == many, "the first, beside the second");
    check(on_a_small_stack(second) == few, "a small stack there");
    check(dlclose(other) == 0 && dlclose(handle) == 0, "both unloaded");
    check(digest_once(linked, FEW, 1, "linked") == few, "the library that the program is linked with, as before");
    return 0;
}
