/* Training and evaluation on a Cortex-M4F without an operating system or a C library, in static memory.
 *
 * Built for the host (-DHOSTED) it does the same, and both must give the same bits: the digest below. */

#include <normdrop.h>

enum { ROWS = 8, FEATURES = 6, LEN = ROWS * FEATURES, MASK = (LEN + 7) / 8, SCRATCH = 512 };

/* FNV-1a of the output and of the gradient of the input, on every target. */
static const uint32_t DIGEST = 0x2bc45abfu;

static float x[LEN], y[LEN], grad[LEN], running_mean[FEATURES], running_var[FEATURES], mean[FEATURES], mean_tail[FEATURES];
static double inv_std[FEATURES], scratch[SCRATCH];
static uint8_t mask[MASK];

static uint32_t digest(uint32_t hash, const float *values) {
    const uint8_t *bytes = (const uint8_t *)values;
    for (size_t i = 0; i < LEN * sizeof(float); i++) {
        hash = (hash ^ bytes[i]) * 16777619u;
    }
    return hash;
}

/* Not inlined into `reset`, which would save registers of the FPU before it is on. */
__attribute__((noinline)) static uint32_t train(void) {
    normdrop_layer layer;
    normdrop_lengths lengths = {.version = NORMDROP_ABI_VERSION};
    normdrop_layer_init(&layer, NORMDROP_ABI_VERSION);
    layer.outer = ROWS;
    layer.channels = FEATURES;
    layer.activation = NORMDROP_ACTIVATION_TANH;
    layer.p = 0.25;
    for (int i = 0; i < LEN; i++) {
        x[i] = (float)(i * i % 37) / 8;
        grad[i] = (float)(i * 5 % 11) - 5;
    }
    if (normdrop_layer_lengths(&layer, &lengths, NULL) != NORMDROP_STATUS_OK || lengths.scratch > SCRATCH ||
        normdrop_fill_mask(&layer, 1, (normdrop_slice_mut_u8){mask, MASK}, NULL) != NORMDROP_STATUS_OK) {
        return 0;
    }
    const normdrop_train_call call = {
        .version = NORMDROP_ABI_VERSION,
        .running_mean = {running_mean, FEATURES},
        .running_var = {running_var, FEATURES},
        .mask = {mask, MASK},
        .input = {x, LEN},
        .output = {y, LEN},
        .saved_mean = {mean, FEATURES},
        .saved_mean_tail = {mean_tail, FEATURES},
        .saved_inv_std = {inv_std, FEATURES},
        .scratch = {scratch, SCRATCH},
    };
    /* In place: the gradient of the output becomes that of the input. */
    const normdrop_backward_call backward = {
        .version = NORMDROP_ABI_VERSION,
        .saved_mean = {mean, FEATURES},
        .saved_mean_tail = {mean_tail, FEATURES},
        .saved_inv_std = {inv_std, FEATURES},
        .mask = {mask, MASK},
        .input = {x, LEN},
        .grad_output = {grad, LEN},
        .grad_input = {grad, LEN},
        .scratch = {scratch, SCRATCH},
    };
    if (normdrop_train(&layer, &call, NULL) != NORMDROP_STATUS_OK ||
        normdrop_backward(&layer, &backward, NULL) != NORMDROP_STATUS_OK) {
        return 0;
    }
    return digest(digest(2166136261u, y), grad);
}

#ifdef HOSTED

#include <stdio.h>

int main(void) {
    uint32_t got = train();
    printf("digest 0x%08x\n", (unsigned)got);
    return got == DIGEST ? 0 : 1;
}

#else

extern uint32_t stack_top[];

/* The semihosting call SYS_EXIT_EXTENDED, which an emulator or a debugger answers. */
static void leave(uint32_t status) {
    const uint32_t arguments[2] = {0x20026u, status};
    register uint32_t operation __asm__("r0") = 0x20;
    register const uint32_t *parameter __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(operation) : "r"(parameter) : "memory");
    for (;;) {
    }
}

void reset(void);

void reset(void) {
    /* Without an operating system nobody else turns the floating-point unit on. */
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb");
    leave(train() == DIGEST ? 0 : 1);
}

static void fault(void) { leave(2); }

__attribute__((section(".vectors"), used)) static const struct {
    const uint32_t *stack;
    void (*handlers[15])(void);
} vectors = {stack_top, {reset, fault, fault, fault, fault, fault}};

#endif
