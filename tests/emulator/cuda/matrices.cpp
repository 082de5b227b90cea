/* Matrix loads and products of a whole warp, in the fragment layouts that device_ops.h
 * writes down. */
#include <cmath>
#include <immintrin.h>

#include "emulated.h"

namespace ops {

namespace {

using emulator::Collective;
using emulator::warp_size;

constexpr uint32_t all_lanes = ~0u;

/* A lane's row address and words of a matrix load. */
struct Load {
    const void *row;
    uint32_t offset; /* Of the row in shared memory. */
    uint32_t *words;
    const Site &site;
};

uint16_t number(const Load &row, uint32_t column) {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const unsigned char *>(row.row) + 2 * column, sizeof bits);
    return bits;
}

/* Which thread reads is not laid down. So both must be ordered after a row's writer: the lane
 * that gives its address, and those that get its numbers. */
void reads(uint32_t thread, const Load &row, uint32_t column, uint32_t columns) {
    if constexpr (emulator::races_sought) {
        emulator::instruction_accesses(thread, row.offset + 2 * column, 2 * columns,
                                       emulator::Access::read, row.site);
    }
}

template <bool transposed>
void perform_load(void *const *operands, uint32_t) {
    uint32_t first_thread = threadIdx.x / warp_size * warp_size;
    for (uint32_t lane = 0; lane < warp_size; lane++) {
        const Load &load = *static_cast<const Load *>(operands[lane]);
        reads(first_thread + lane, load, 0, 8);
        for (uint32_t matrix = 0; matrix < 4; matrix++) {
            uint32_t major = lane / 4, minor = lane % 4 * 2;
            uint32_t row = matrix * 8 + (transposed ? minor : major);
            uint32_t column = transposed ? major : minor;
            const Load &low = *static_cast<const Load *>(operands[row]);
            const Load &high = *static_cast<const Load *>(operands[row + transposed]);
            reads(first_thread + lane, low, column, transposed ? 1 : 2);
            if (transposed) {
                reads(first_thread + lane, high, column, 1);
            }
            load.words[matrix] = number(low, column) |
                                 uint32_t{number(high, column + !transposed)} << 16;
        }
    }
    emulator::counts.matrix_count++;
}

constexpr Collective load_collective{"load_matrix_4", perform_load<false>};
constexpr Collective load_transposed_collective{"load_matrix_4_transposed",
                                                perform_load<true>};

void load(const Collective &what, uint32_t (&words)[4], const void *row, const Site &site) {
    Load load{row, emulator::shared_offset(row, 16, what.name, site), words, site};
    emulator::rendezvous(what, all_lanes, &load, site);
}

template <class Sum>
struct Product {
    Sum *d;
    const uint32_t *a, *b;
};

constinit thread_local bool truncates = false;

/* A number's exponent, of its largest bit; far below all of f32 for 0. */
int exponent(double x) { return x == 0.0 ? -2000 : std::ilogb(x); }

/* sum + the products of eight numbers each, as tensor cores of sm_80 were found to add
 * (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021, and
 * models of later cards): products are exact; all addends are cut to the bits that the largest
 * of them has in f32, and one more; the sum is cut to f32. Later cards add 16 at a time and keep
 * two bits: they cut off less. */
float truncated_sum(const double (&products)[8], float sum) {
    constexpr int BITS = 24 + 1;
    double exact = sum;
    int largest = exponent(sum);
    for (double product : products) {
        exact += product;
        largest = exponent(product) > largest ? exponent(product) : largest;
    }
    if (!std::isfinite(exact) || largest == -2000) {
        return static_cast<float>(exact);
    }
    double unit = std::ldexp(1.0, largest + 1 - BITS);
    double total = std::trunc(static_cast<double>(sum) / unit);
    for (double product : products) {
        total += std::trunc(product / unit);
    }
    total *= unit;
    float nearest = static_cast<float>(total);
    bool above = std::fabs(static_cast<double>(nearest)) > std::fabs(total);
    return above ? std::nextafter(nearest, 0.0f) : nearest;
}

/* bf16 is the upper half of f32. */
float of_bf16(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }

/* d[row][.] += a b of one warp, `of` turning 16 bits into a number. */
template <float (*of)(uint16_t)>
void perform_product(void *const *operands, uint32_t) {
    float a[16][16];
    alignas(32) float b[16][8], d[16][8];
    auto product = [&](uint32_t lane) -> const Product<float> & {
        return *static_cast<const Product<float> *>(operands[lane]);
    };
    for (uint32_t lane = 0; lane < warp_size; lane++) {
        const Product<float> &own = product(lane);
        uint32_t group = lane / 4, two = lane % 4 * 2;
        for (uint32_t i = 0; i < 8; i++) {
            auto bits = static_cast<uint16_t>(own.a[i / 2] >> i % 2 * 16);
            a[group + i / 2 % 2 * 8][two + i / 4 * 8 + i % 2] = of(bits);
        }
        for (uint32_t i = 0; i < 4; i++) {
            auto bits = static_cast<uint16_t>(own.b[i / 2] >> i % 2 * 16);
            b[two + i / 2 * 8 + i % 2][group] = of(bits);
        }
        for (uint32_t i = 0; i < 4; i++) {
            d[group + i / 2 * 8][two + i % 2] = own.d[i];
        }
    }
    for (uint32_t row = 0; truncates && row < 16; row++) {
        for (uint32_t column = 0; column < 8; column++) {
            for (uint32_t half = 0; half < 16; half += 8) {
                double products[8];
                for (uint32_t k = 0; k < 8; k++) {
                    products[k] = double{a[row][half + k]} * double{b[half + k][column]};
                }
                d[row][column] = truncated_sum(products, d[row][column]);
            }
        }
    }
    for (uint32_t row = 0; !truncates && row < 16; row++) {
        __m256 sums = _mm256_load_ps(d[row]);
        for (uint32_t k = 0; k < 16; k++) {
            sums = _mm256_fmadd_ps(_mm256_set1_ps(a[row][k]), _mm256_load_ps(b[k]), sums);
        }
        _mm256_store_ps(d[row], sums);
    }
    for (uint32_t lane = 0; lane < warp_size; lane++) {
        for (uint32_t i = 0; i < 4; i++) {
            product(lane).d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
        }
    }
    emulator::counts.mma_count++;
}

/* Byte k of the 32 of a row or column, signed or not: a word holds four of them. */
template <class Byte>
int32_t byte(const uint32_t *const (&words)[8], uint32_t k) {
    uint32_t word = *words[k / 4];
    return static_cast<Byte>(word >> k % 4 * 8);
}

/* a of signed bytes, b of `Right`. */
template <class Right>
void perform_product_s8(void *const *operands, uint32_t) {
    auto product = [&](uint32_t lane) -> const Product<int32_t> & {
        return *static_cast<const Product<int32_t> *>(operands[lane]);
    };
    for (uint32_t lane = 0; lane < warp_size; lane++) {
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            const uint32_t *a[8], *b[8];
            for (uint32_t word = 0; word < 8; word++) {
                a[word] = &product(row % 8 * 4 + word % 4).a[row / 8 + word / 4 * 2];
                b[word] = &product(column * 4 + word % 4).b[word / 4];
            }
            /* Sums wrap as the instruction's do. */
            auto sum = static_cast<uint32_t>(product(lane).d[i]);
            for (uint32_t k = 0; k < 32; k++) {
                sum += static_cast<uint32_t>(byte<int8_t>(a, k) * byte<Right>(b, k));
            }
            product(lane).d[i] = static_cast<int32_t>(sum);
        }
    }
    emulator::counts.mma_count++;
}

constexpr Collective bf16_collective{"mma_bf16", perform_product<of_bf16>};
constexpr Collective f16_collective{"mma_f16", perform_product<of_f16>};
constexpr Collective s8_collective{"mma_s8", perform_product_s8<int8_t>};
constexpr Collective s8_u8_collective{"mma_s8_u8", perform_product_s8<uint8_t>};

} // namespace

void load_matrix_4(uint32_t (&words)[4], const void *row, Site site) {
    load(load_collective, words, row, site);
}

void load_matrix_4_transposed(uint32_t (&words)[4], const void *row, Site site) {
    load(load_transposed_collective, words, row, site);
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
    Product<float> product{d, a, b};
    emulator::rendezvous(bf16_collective, all_lanes, &product, site);
}

void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
    Product<float> product{d, a, b};
    emulator::rendezvous(f16_collective, all_lanes, &product, site);
}

void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
    Product<int32_t> product{d, a, b};
    emulator::rendezvous(s8_collective, all_lanes, &product, site);
}

void mma_s8_u8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
    Product<int32_t> product{d, a, b};
    emulator::rendezvous(s8_u8_collective, all_lanes, &product, site);
}

} // namespace ops

extern "C" void emulated_tensor_core(uint32_t adds) {
    ops::truncates = adds == EMULATED_ADDS_TRUNCATING;
}
