/* One tiny kernel for each thing that kernels ask of a card: the functions of device_ops.h
 * and the few builtins that its head lists. Every probe is one block that turns words into a
 * table of words, chosen so that the order of operands and the lane of each number show. The
 * emulator runs the same file, and what it writes is what a card must write, bit for bit:
 * the first thing to run on a new one.
 *
 * The list at the bottom says how each is launched; words.txt is what they read.
 *
 * instructions: HMMA.16816.F32, HMMA.16816.F32.BF16, IMMA.16832.S8.S8, IDP.4A.S8.S8
 * instructions: LDSM.16.M88.4, LDSM.16.MT88.4, LDGSTS.E.BYPASS.128, LDGSTS.E.64
 */
#include "device_ops.h"

/* The one argument of a probe, and how it is launched: its threads, bytes of shared memory,
 * words of words.txt that it reads, and words that it writes. */
struct probe {
    const uint32_t *in; /* aligned to 16 bytes */
    uint32_t *out;
};
#define PROBE(name, threads, shared_bytes, words_in, words_out) \
    ENTRY(probe_##name, threads, 1, probe, name)

#define WARP 0xffffffffu
#define WORDS 128u

/* ---- Numbers: every word, or every pair of words, as f32 --------------------------- */

/* A number that is none has no promised bits: the card's and a CPU's differ. */
static __device__ uint32_t bits_of(float x) { return x != x ? 0x7fc00000u : __float_as_uint(x); }

template <typename Operation>
static __device__ void each_word(const probe &probe, Operation operation) {
    probe.out[threadIdx.x] = operation(probe.in[threadIdx.x]);
}

/* Row i, column j of the table is what the operation makes of words i and j. */
template <typename Operation>
static __device__ void each_pair(const probe &probe, Operation operation) {
    for (uint32_t i = 0; i < WORDS; i++) {
        probe.out[i * WORDS + threadIdx.x] = operation(probe.in[i], probe.in[threadIdx.x]);
    }
}

static __device__ void add(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        return bits_of(__uint_as_float(a) + __uint_as_float(b));
    });
}

static __device__ void subtract(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        return bits_of(__uint_as_float(a) - __uint_as_float(b));
    });
}

static __device__ void multiply(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        return bits_of(__uint_as_float(a) * __uint_as_float(b));
    });
}

static __device__ void divide(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        return bits_of(__uint_as_float(a) / __uint_as_float(b));
    });
}

/* The third operand is nearly what takes the product away, so that one rounding differs
 * from two. */
static __device__ void fused(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        float x = __uint_as_float(a), y = __uint_as_float(b);
        return bits_of(__fmaf_rn(x, y, -(x * y)));
    });
}

/* A product and a sum that must stay two roundings. */
static __device__ void unfused(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        float x = __uint_as_float(a), y = __uint_as_float(b);
        return bits_of(x * y + x);
    });
}

static __device__ void square_root(const probe &probe) {
    each_word(probe, [](uint32_t a) { return bits_of(sqrtf(__uint_as_float(a))); });
}

static __device__ void absolute(const probe &probe) {
    each_word(probe, [](uint32_t a) { return bits_of(fabsf(__uint_as_float(a))); });
}

static __device__ void round_to_even(const probe &probe) {
    each_word(probe, [](uint32_t a) { return bits_of(rintf(__uint_as_float(a))); });
}

/* To the nearest integer; past the last to the last, and 0 of what is no number. */
static __device__ void integer_of(const probe &probe) {
    each_word(probe, [](uint32_t a) {
        return static_cast<uint32_t>(__float2int_rn(__uint_as_float(a)));
    });
}

static __device__ void of_integer(const probe &probe) {
    each_word(probe, [](uint32_t a) {
        return bits_of(static_cast<float>(static_cast<int32_t>(a)));
    });
}

static __device__ void of_unsigned(const probe &probe) {
    each_word(probe, [](uint32_t a) { return bits_of(static_cast<float>(a)); });
}

/* Through the casts, which keep every bit. */
static __device__ void as_casts(const probe &probe) {
    each_word(probe, [](uint32_t a) {
        int32_t bits = __float_as_int(__uint_as_float(a));
        return __float_as_uint(__int_as_float(bits));
    });
}

static __device__ void f16_of(const probe &probe) {
    each_word(probe, [](uint32_t a) {
        uint32_t bits = ops::f16_of(__uint_as_float(a));
        return (bits & 0x7fffu) > 0x7c00u ? 0x7e00u : bits;
    });
}

/* All 2^16 of them. */
static __device__ void of_f16(const probe &probe) {
    for (uint32_t bits = threadIdx.x; bits < 65536u; bits += blockDim.x) {
        probe.out[bits] = bits_of(ops::of_f16(static_cast<uint16_t>(bits)));
    }
}

/* ---- Integers --------------------------------------------------------------------- */

static __device__ void high_32(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) { return __umulhi(a, b); });
}

static __device__ void high_64(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        uint64_t x = static_cast<uint64_t>(a) << 32 | b, y = static_cast<uint64_t>(b) << 32 | a;
        uint64_t high = __umul64hi(x, y);
        return static_cast<uint32_t>(high >> 32) ^ static_cast<uint32_t>(high);
    });
}

static __device__ void count_bits(const probe &probe) {
    uint32_t a = probe.in[threadIdx.x];
    uint4 counts = make_uint4(__popc(a), __clz(static_cast<int32_t>(a)),
                              __ffs(static_cast<int32_t>(a)), __brev(a));
    reinterpret_cast<uint4 *>(probe.out)[threadIdx.x] = counts;
}

/* Signed bytes; the sum wraps. */
static __device__ void dot4(const probe &probe) {
    each_pair(probe, [](uint32_t a, uint32_t b) {
        return static_cast<uint32_t>(ops::dot4(a, b, static_cast<int32_t>(a ^ b)));
    });
}

/* ---- A block and its warps -------------------------------------------------------- */

static __device__ void place(const probe &probe) {
    uint32_t *row = probe.out + 8 * threadIdx.x;
    row[0] = threadIdx.x;
    row[1] = blockDim.x;
    row[2] = blockIdx.x;
    row[3] = blockIdx.y;
    row[4] = blockIdx.z;
    row[5] = gridDim.x;
    row[6] = gridDim.y;
    row[7] = gridDim.z;
}

/* Every lane says what it has: row i is what lanes heard in round i. */
template <typename Exchange>
static __device__ void each_round(const probe &probe, Exchange exchange) {
    for (uint32_t round = 0; round < 32; round++) {
        probe.out[32 * round + threadIdx.x] = exchange(1000u + threadIdx.x, round);
    }
}

static __device__ void shuffle(const probe &probe) {
    each_round(probe, [](uint32_t mine, uint32_t round) {
        return __shfl_sync(WARP, mine, (threadIdx.x * 5 + round) % 32);
    });
}

static __device__ void shuffle_xor(const probe &probe) {
    each_round(probe, [](uint32_t mine, uint32_t round) {
        return __shfl_xor_sync(WARP, mine, round);
    });
}

/* A lane that would hear from outside the warp hears itself. */
static __device__ void shuffle_up(const probe &probe) {
    each_round(probe, [](uint32_t mine, uint32_t round) {
        return __shfl_up_sync(WARP, mine, round);
    });
}

static __device__ void shuffle_down(const probe &probe) {
    each_round(probe, [](uint32_t mine, uint32_t round) {
        return __shfl_down_sync(WARP, mine, round);
    });
}

/* Floats go the same way, with all their bits. */
static __device__ void shuffle_float(const probe &probe) {
    float mine = __uint_as_float(probe.in[threadIdx.x]);
    probe.out[threadIdx.x] = __float_as_uint(__shfl_xor_sync(WARP, mine, 1));
}

static __device__ void ballot(const probe &probe) {
    each_round(probe, [](uint32_t, uint32_t round) {
        return __ballot_sync(WARP, (threadIdx.x * round) % 7 < 3);
    });
}

static __device__ void any(const probe &probe) {
    each_round(probe, [](uint32_t, uint32_t round) {
        return __any_sync(WARP, threadIdx.x + round == 40) ? 1u : 0u;
    });
}

static __device__ void all(const probe &probe) {
    each_round(probe, [](uint32_t, uint32_t round) {
        return __all_sync(WARP, threadIdx.x + round < 40) ? 1u : 0u;
    });
}

/* A warp's words in reverse, through shared memory. */
static __device__ void warp_barrier(const probe &probe) {
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    shared[threadIdx.x] = probe.in[threadIdx.x];
    __syncwarp();
    probe.out[threadIdx.x] = shared[31 - threadIdx.x];
}

/* The same of a block, whose warps go at their own pace. */
static __device__ void block_barrier(const probe &probe) {
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    shared[threadIdx.x] = probe.in[threadIdx.x];
    __syncthreads();
    probe.out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

/* ---- Memory ----------------------------------------------------------------------- */

/* What was there before each, by every thread in a word of its own; then what is there. */
template <typename Operation>
static __device__ void each_cell(const probe &probe, uint32_t first, Operation operation) {
    uint32_t *cell = probe.out + WORDS + threadIdx.x;
    *cell = first;
    probe.out[threadIdx.x] = operation(cell, probe.in[threadIdx.x]);
}

static __device__ void atomic_add(const probe &probe) {
    each_cell(probe, 0xfffffff0u, [](uint32_t *at, uint32_t a) { return atomicAdd(at, a); });
}

static __device__ void atomic_max(const probe &probe) {
    each_cell(probe, 0x40000000u, [](uint32_t *at, uint32_t a) { return atomicMax(at, a); });
}

static __device__ void atomic_min(const probe &probe) {
    each_cell(probe, 0x40000000u, [](uint32_t *at, uint32_t a) { return atomicMin(at, a); });
}

static __device__ void atomic_or(const probe &probe) {
    each_cell(probe, 0x0f0f0f0fu, [](uint32_t *at, uint32_t a) { return atomicOr(at, a); });
}

static __device__ void atomic_exchange(const probe &probe) {
    each_cell(probe, 7, [](uint32_t *at, uint32_t a) { return atomicExch(at, a); });
}

/* Every other one finds what it expects. */
static __device__ void atomic_swap(const probe &probe) {
    each_cell(probe, 8, [](uint32_t *at, uint32_t a) {
        return atomicCAS(at, 7 + threadIdx.x % 2, a);
    });
}

/* Each thread draws one number of its own and writes it there; the last to come sums what
 * the others wrote, which a fence has put before their number. */
static __device__ void fence(const probe &probe) {
    uint32_t *count = reinterpret_cast<uint32_t *>(SHARED());
    if (threadIdx.x == 0) {
        *count = 0;
    }
    __syncthreads();
    probe.out[threadIdx.x] = probe.in[threadIdx.x];
    __threadfence();
    uint32_t drawn = atomicAdd(count, 1u);
    if (drawn == blockDim.x - 1) {
        __threadfence();
        uint32_t sum = 0;
        for (uint32_t i = 0; i < blockDim.x; i++) {
            sum += atomicAdd(probe.out + i, 0u);
        }
        probe.out[blockDim.x] = sum;
    }
}

static __device__ void load_once(const probe &probe) {
    uint4 words = ops::load_once(probe.in + 4 * (31 - threadIdx.x));
    reinterpret_cast<uint4 *>(probe.out)[threadIdx.x] = words;
}

/* Two groups of copies in a warp, the first read while the second may be on its way. Of
 * three lanes, the first brings nothing but zeros. */
template <typename Copy>
static __device__ void two_copies(const probe &probe, uint32_t words_each, Copy copy) {
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    uint32_t lane = threadIdx.x, words = 32 * words_each;
    for (uint32_t i = lane; i < 2 * words; i += 32) {
        shared[i] = 0xeeeeeeeeu;
    }
    __syncwarp();
    copy(shared + words_each * lane, probe.in + words_each * (31 - lane), lane % 3 != 0);
    ops::copy_async_commit();
    copy(shared + words + words_each * lane, probe.in + words_each * lane, lane % 3 != 1);
    ops::copy_async_commit();
    ops::copy_async_wait<1>();
    __syncwarp();
    for (uint32_t i = lane; i < words; i += 32) {
        probe.out[i] = shared[i];
    }
    ops::copy_async_wait<0>();
    __syncwarp();
    for (uint32_t i = words + lane; i < 2 * words; i += 32) {
        probe.out[i] = shared[i];
    }
}

static __device__ void copy_async_16(const probe &probe) {
    two_copies(probe, 4, [](void *to, const void *from, bool valid) {
        ops::copy_async_16(to, from, valid);
    });
}

static __device__ void copy_async_8(const probe &probe) {
    two_copies(probe, 2, [](void *to, const void *from, bool valid) {
        ops::copy_async_8(to, from, valid);
    });
}

static __device__ void copy_async_4(const probe &probe) {
    two_copies(probe, 1, [](void *to, const void *from, bool valid) {
        ops::copy_async_4(to, from, valid);
    });
}

/* ---- Matrices --------------------------------------------------------------------- */

/* Rows of 8 numbers, each number the place it has; lanes ask for them in another order. */
template <typename Load>
static __device__ void four_matrices(const probe &probe, Load load) {
    uint16_t *rows = reinterpret_cast<uint16_t *>(SHARED());
    for (uint32_t i = threadIdx.x; i < 32 * 8; i += 32) {
        rows[i] = static_cast<uint16_t>(i);
    }
    __syncwarp();
    uint32_t words[4];
    load(words, rows + 8 * ((threadIdx.x * 5 + 3) % 32));
    for (uint32_t i = 0; i < 4; i++) {
        probe.out[4 * threadIdx.x + i] = words[i];
    }
}

static __device__ void load_matrix_4(const probe &probe) {
    four_matrices(probe, [](uint32_t(&words)[4], const void *row) {
        ops::load_matrix_4(words, row);
    });
}

static __device__ void load_matrix_4_transposed(const probe &probe) {
    four_matrices(probe, [](uint32_t(&words)[4], const void *row) {
        ops::load_matrix_4_transposed(words, row);
    });
}

/* Two numbers as one word of 16-bit ones, the first in its low half. */
template <typename Bits>
static __device__ uint32_t pair(uint32_t first, uint32_t second, Bits bits) {
    return bits(static_cast<float>(first)) | bits(static_cast<float>(second)) << 16;
}

/* The numbers of a are 0 to 255, those of b 0 to 127, and what d begins with is 1000 times
 * its place: sums are whole and below 2^24, so that the order of their terms is no matter,
 * and no exchange of two numbers leaves d as it is. d goes out by rows. */
template <typename Bits, typename Multiply>
static __device__ void mma_16(const probe &probe, Bits bits, Multiply multiply) {
    uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t a[4], b[2];
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);
        a[i] = pair(16 * row + column, 16 * row + column + 1, bits);
    }
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t row = 2 * t + 8 * i;
        b[i] = pair(8 * row + g, 8 * (row + 1) + g, bits);
    }
    float d[4];
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t at = 8 * (g + 8 * (i / 2)) + 2 * t + i % 2;
        d[i] = static_cast<float>(1000 * at);
    }
    multiply(d, a, b);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t at = 8 * (g + 8 * (i / 2)) + 2 * t + i % 2;
        probe.out[at] = __float_as_uint(d[i]);
    }
}

/* Whole numbers up to 255 have their first eight bits alone. */
static __device__ void mma_bf16(const probe &probe) {
    mma_16(
        probe, [](float x) { return __float_as_uint(x) >> 16; },
        [](float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) {
            ops::mma_bf16(d, a, b);
        });
}

static __device__ void mma_f16(const probe &probe) {
    mma_16(
        probe, [](float x) { return static_cast<uint32_t>(ops::f16_of(x)); },
        [](float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) {
            ops::mma_f16(d, a, b);
        });
}

/* The signed bytes of four places, each a step after the one before, the first lowest. 18.5
 * times a place: no two rows are alike, though 512 places have but 256 bytes. */
static __device__ uint32_t bytes(uint32_t first, uint32_t step) {
    uint32_t word = 0;
    for (uint32_t i = 0; i < 4; i++) {
        word |= ((first + i * step) * 37u / 2u & 0xffu) << 8 * i;
    }
    return word;
}

/* Here d begins with its place times 100000, either side of zero. */
template <bool unsigned_right>
static __device__ void product_of_bytes(const probe &probe) {
    uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t a[4], b[2];
    for (uint32_t i = 0; i < 4; i++) {
        a[i] = bytes(32 * (g + 8 * (i % 2)) + 4 * t + 16 * (i / 2), 1);
    }
    for (uint32_t i = 0; i < 2; i++) {
        b[i] = bytes(8 * (4 * t + 16 * i) + g, 8);
    }
    int32_t d[4];
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t at = 8 * (g + 8 * (i / 2)) + 2 * t + i % 2;
        d[i] = (static_cast<int32_t>(at) - 64) * 100000;
    }
    if (unsigned_right) {
        ops::mma_s8_u8(d, a, b);
    } else {
        ops::mma_s8(d, a, b);
    }
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t at = 8 * (g + 8 * (i / 2)) + 2 * t + i % 2;
        probe.out[at] = static_cast<uint32_t>(d[i]);
    }
}

static __device__ void mma_s8(const probe &probe) { product_of_bytes<false>(probe); }

static __device__ void mma_s8_u8(const probe &probe) { product_of_bytes<true>(probe); }

/* name, threads, bytes of shared memory, words in, words out */
PROBE(add, 128, 0, 128, 16384)
PROBE(subtract, 128, 0, 128, 16384)
PROBE(multiply, 128, 0, 128, 16384)
PROBE(divide, 128, 0, 128, 16384)
PROBE(fused, 128, 0, 128, 16384)
PROBE(unfused, 128, 0, 128, 16384)
PROBE(square_root, 128, 0, 128, 128)
PROBE(absolute, 128, 0, 128, 128)
PROBE(round_to_even, 128, 0, 128, 128)
PROBE(integer_of, 128, 0, 128, 128)
PROBE(of_integer, 128, 0, 128, 128)
PROBE(of_unsigned, 128, 0, 128, 128)
PROBE(as_casts, 128, 0, 128, 128)
PROBE(f16_of, 128, 0, 128, 128)
PROBE(of_f16, 128, 0, 0, 65536)
PROBE(high_32, 128, 0, 128, 16384)
PROBE(high_64, 128, 0, 128, 16384)
PROBE(count_bits, 128, 0, 128, 512)
PROBE(dot4, 128, 0, 128, 16384)
PROBE(place, 128, 0, 0, 1024)
PROBE(shuffle, 32, 0, 0, 1024)
PROBE(shuffle_xor, 32, 0, 0, 1024)
PROBE(shuffle_up, 32, 0, 0, 1024)
PROBE(shuffle_down, 32, 0, 0, 1024)
PROBE(shuffle_float, 32, 0, 32, 32)
PROBE(ballot, 32, 0, 0, 1024)
PROBE(any, 32, 0, 0, 1024)
PROBE(all, 32, 0, 0, 1024)
PROBE(warp_barrier, 32, 128, 32, 32)
PROBE(block_barrier, 128, 512, 128, 128)
PROBE(atomic_add, 128, 0, 128, 256)
PROBE(atomic_max, 128, 0, 128, 256)
PROBE(atomic_min, 128, 0, 128, 256)
PROBE(atomic_or, 128, 0, 128, 256)
PROBE(atomic_exchange, 128, 0, 128, 256)
PROBE(atomic_swap, 128, 0, 128, 256)
PROBE(fence, 128, 4, 128, 129)
PROBE(load_once, 32, 0, 128, 128)
PROBE(copy_async_16, 32, 1024, 128, 256)
PROBE(copy_async_8, 32, 512, 64, 128)
PROBE(copy_async_4, 32, 256, 32, 64)
PROBE(load_matrix_4, 32, 512, 0, 128)
PROBE(load_matrix_4_transposed, 32, 512, 0, 128)
PROBE(mma_bf16, 32, 0, 0, 128)
PROBE(mma_f16, 32, 0, 0, 128)
PROBE(mma_s8, 32, 0, 0, 128)
PROBE(mma_s8_u8, 32, 0, 0, 128)
