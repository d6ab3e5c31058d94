/* The program `classify` in C, without a C library: it prints the same lines, to the bit.
 *
 * Compile it with -ffp-contract=off. In its own dialect GCC may fuse a product and a sum otherwise, and this CPU can: then the
 * outputs are other bits. */
#include <normdrop.h>

enum { PIXELS = 64, HIDDEN = 32, CLASSES = 10, DIGITS = 320, LINE = 40, SCRATCH = 64 };

/* What the example `digits` has exported. */
typedef struct {
    float hidden_weight[PIXELS * HIDDEN], hidden_bias[HIDDEN];
    float norm_weight[HIDDEN], norm_bias[HIDDEN], norm_mean[HIDDEN], norm_var[HIDDEN];
    float output_weight[HIDDEN * CLASSES], output_bias[CLASSES];
} network;

typedef struct {
    uint8_t ink[PIXELS], label;
} digit;

/* In flash, as the files are. */
__asm__(".pushsection .rodata\n"
        ".balign 4\n"
        ".global trained\n"
        "trained: .incbin \"network.f32\"\n"
        ".global digits\n"
        "digits: .incbin \"digits.u8\"\n"
        ".popsection");
extern const network trained;
extern const digit digits[DIGITS];

static float pixels[PIXELS], hidden[HIDDEN], outputs[CLASSES];
static float folded_weight[PIXELS * HIDDEN], folded_bias[HIDDEN];
static double scratch[SCRATCH];

/* FNV-1a of the bytes of numbers. This CPU has the least significant byte first, as the digests want it. */
typedef uint64_t digest;

static void add(digest *digest, const float *numbers, size_t len) {
    const uint8_t *bytes = (const uint8_t *)numbers;
    for (size_t i = 0; i < len * sizeof *numbers; i++) {
        *digest = (*digest ^ bytes[i]) * 0x100000001B3u;
    }
}

/* Text. */

static uint32_t semihosting(uint32_t operation, const void *parameter) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = parameter;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* To the standard output of the emulator, which is the file `:tt` opened for writing. */
static void print(const char *text) {
    static uint32_t file;
    uint32_t len = 0;
    while (text[len] != 0) {
        len++;
    }
    if (file == 0) {
        const uint32_t arguments[3] = {(uint32_t)(uintptr_t)":tt", 4, 3};
        file = semihosting(0x01, arguments);
    }
    const uint32_t arguments[3] = {file, (uint32_t)(uintptr_t)text, len};
    semihosting(0x05, arguments);
}

static void print_digit(unsigned digit) {
    const char text[2] = {(char)(digit < 10 ? '0' + digit : 'a' - 10 + digit), 0};
    print(text);
}

static void print_number(unsigned number) {
    if (number >= 10) {
        print_number(number / 10);
    }
    print_digit(number % 10);
}

static void print_hex(uint64_t number) {
    for (int shift = 60; shift >= 0; shift -= 4) {
        print_digit((unsigned)(number >> shift) & 15);
    }
}

/* The network. */

/* y = x*W + b, row by row: the order of the sums that the Rust programs have. */
static void linear(const float *weight, const float *bias, size_t in, size_t out, const float *x, float *y) {
    for (size_t o = 0; o < out; o++) {
        y[o] = bias[o];
    }
    for (size_t i = 0; i < in; i++) {
        for (size_t o = 0; o < out; o++) {
            y[o] += x[i] * weight[i * out + o];
        }
    }
}

static unsigned largest(void) {
    unsigned largest = 0;
    for (unsigned i = 1; i < CLASSES; i++) {
        if (outputs[i] > outputs[largest]) {
            largest = i;
        }
    }
    return largest;
}

static void look_at(const digit *digit) {
    for (size_t i = 0; i < PIXELS; i++) {
        pixels[i] = (float)digit->ink[i] / 16;
    }
}

static normdrop_status unfolded(const normdrop_layer *layer, unsigned *seen) {
    linear(trained.hidden_weight, trained.hidden_bias, PIXELS, HIDDEN, pixels, hidden);
    const normdrop_eval_call call = {
        .version = NORMDROP_ABI_VERSION,
        .weight = {trained.norm_weight, HIDDEN},
        .bias = {trained.norm_bias, HIDDEN},
        .running_mean = {trained.norm_mean, HIDDEN},
        .running_var = {trained.norm_var, HIDDEN},
        .input = {hidden, HIDDEN},
        .output = {hidden, HIDDEN},
        .scratch = {scratch, SCRATCH},
    };
    normdrop_status status = normdrop_eval(layer, &call, NULL);
    linear(trained.output_weight, trained.output_bias, HIDDEN, CLASSES, hidden, outputs);
    *seen = largest();
    return status;
}

static unsigned folded(void) {
    linear(folded_weight, folded_bias, PIXELS, HIDDEN, pixels, hidden);
    for (size_t i = 0; i < HIDDEN; i++) {
        hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
    }
    linear(trained.output_weight, trained.output_bias, HIDDEN, CLASSES, hidden, outputs);
    return largest();
}

static normdrop_status fold(float eps) {
    for (size_t i = 0; i < PIXELS * HIDDEN; i++) {
        folded_weight[i] = trained.hidden_weight[i];
    }
    for (size_t i = 0; i < HIDDEN; i++) {
        folded_bias[i] = trained.hidden_bias[i];
    }
    const normdrop_fold_call call = {
        .version = NORMDROP_ABI_VERSION,
        .eps = eps,
        .order = NORMDROP_WEIGHT_ORDER_TAPS_IN_OUT,
        .outputs = HIDDEN,
        .inputs = PIXELS,
        .taps = 1,
        .weight = {trained.norm_weight, HIDDEN},
        .bias = {trained.norm_bias, HIDDEN},
        .running_mean = {trained.norm_mean, HIDDEN},
        .running_var = {trained.norm_var, HIDDEN},
        .weights = {folded_weight, PIXELS * HIDDEN},
        .weights_bias = {folded_bias, HIDDEN},
    };
    return normdrop_fold_into_previous(&call, NULL);
}

static void print_sum(const char *way, unsigned right, digest outputs) {
    print(way);
    print_number(right);
    print(" right, digest of all outputs ");
    print_hex(outputs);
    print("\n");
}

/* Never a part of `reset`, which would save registers of the floating-point unit before it is turned on. */
__attribute__((noinline)) static normdrop_status run(void) {
    normdrop_layer layer;
    normdrop_lengths lengths = {.version = NORMDROP_ABI_VERSION};
    normdrop_status status = normdrop_layer_init(&layer, NORMDROP_ABI_VERSION);
    layer.channels = HIDDEN;
    layer.activation = NORMDROP_ACTIVATION_RELU;
    /* A buffer that is too short is refused by the call, too; here it is known before anything is done. */
    if (status == NORMDROP_STATUS_OK) {
        status = normdrop_layer_lengths(&layer, &lengths, NULL);
    }
    if (status == NORMDROP_STATUS_OK && lengths.eval_scratch > SCRATCH) {
        status = NORMDROP_STATUS_LENGTH;
    }
    if (status == NORMDROP_STATUS_OK) {
        status = fold(layer.eps);
    }
    unsigned unfolded_right = 0, folded_right = 0;
    digest unfolded_outputs = 0xCBF29CE484222325u, folded_outputs = 0xCBF29CE484222325u;
    for (const digit *line = digits; status == NORMDROP_STATUS_OK && line < digits + DIGITS; line += LINE) {
        print("shown     ");
        for (const digit *digit = line; digit < line + LINE; digit++) {
            print_digit(digit->label);
        }
        print("\nunfolded  ");
        for (const digit *digit = line; status == NORMDROP_STATUS_OK && digit < line + LINE; digit++) {
            unsigned seen;
            look_at(digit);
            status = unfolded(&layer, &seen);
            unfolded_right += seen == digit->label;
            add(&unfolded_outputs, outputs, CLASSES);
            print_digit(seen);
        }
        print("\nfolded    ");
        for (const digit *digit = line; digit < line + LINE; digit++) {
            look_at(digit);
            unsigned seen = folded();
            folded_right += seen == digit->label;
            add(&folded_outputs, outputs, CLASSES);
            print_digit(seen);
        }
        print("\n");
    }
    print_sum("unfolded: ", unfolded_right, unfolded_outputs);
    print_sum("folded: ", folded_right, folded_outputs);
    return status;
}

/* The start. */

extern uint32_t stack_top[], bss_start[], bss_end[];

/* Ends the emulator with a status. */
static void leave(uint32_t status) {
    const uint32_t arguments[2] = {0x20026u, status};
    semihosting(0x20, arguments);
    for (;;) {
    }
}

void reset(void);

void reset(void) {
    for (volatile uint32_t *word = bss_start; word < bss_end; word++) {
        *word = 0;
    }
    /* Nobody else turns the floating-point unit on. */
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb");
    leave((uint32_t)run());
}

static void fault(void) { leave(255); }

__attribute__((section(".vectors"), used)) static const struct {
    const uint32_t *stack;
    void (*handlers[15])(void);
} vectors = {stack_top, {reset, fault, fault, fault, fault, fault}};
