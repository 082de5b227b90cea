/* Loads, stores and products of a SIMD group's matrices. */
#include "simdgroup_matrix.h"

#include <cstring>

#include "traffic.h"

namespace emulator {

namespace {

void perform_product(void *const *operands, uint32_t) {
    auto product = [&](uint32_t lane) -> Product & {
        return *static_cast<Product *>(operands[lane]);
    };
    for (uint32_t lane = 0; lane < warp_size; lane++) {
        uint32_t row = lane / 4, column = lane % 4 * 2;
        for (uint32_t k = 0; k < 8; k++) {
            float a = product(row * 4 + k / 2).a[k % 2];
            const float *b = product(k * 4 + column / 2).b;
            product(lane).d[0] = __builtin_fmaf(a, b[0], product(lane).d[0]);
            product(lane).d[1] = __builtin_fmaf(a, b[1], product(lane).d[1]);
        }
    }
    counts.mma_count++;
}

/* What a load or a store was asked for, and a lane's elements. */
template <class T>
struct Transfer {
    T *elements;
    T *memory;
    ulong elements_per_row;
    ulong2 origin;
    bool transposed, stores;
    const Site &site;

    T *place(uint32_t row, uint32_t column) const {
        ulong down = transposed ? column : row, along = transposed ? row : column;
        return memory + (origin.y + down) * elements_per_row + origin.x + along;
    }

    bool agrees(const Transfer &other) const {
        return memory == other.memory && elements_per_row == other.elements_per_row &&
               origin.x == other.origin.x && origin.y == other.origin.y &&
               transposed == other.transposed;
    }
};

/* Which lane reads an element is not laid down. Since barriers order whole groups, two of
 * them stand for all: one of the two is not the writer. */
template <class T>
void look(const Transfer<T> &transfer, const T *place, uint32_t thread) {
    uint32_t offset = shared_offset(place, sizeof(T), "a matrix", transfer.site);
    if constexpr (races_sought) {
        if (transfer.stores) {
            instruction_accesses(thread, offset, sizeof(T), Access::warp_write, transfer.site);
        } else {
            instruction_accesses(thread, offset, sizeof(T), Access::read, transfer.site);
            instruction_accesses(thread ^ 1, offset, sizeof(T), Access::read, transfer.site);
        }
    }
}

template <class T>
void perform_transfer(void *const *operands, uint32_t) {
    uint32_t first_thread = position.thread.x / warp_size * warp_size;
    auto &first = *static_cast<const Transfer<T> *>(operands[0]);
    bool shared = is_shared(first.place(0, 0));
    for (uint32_t lane = 0; lane < warp_size; lane++) {
        auto &transfer = *static_cast<const Transfer<T> *>(operands[lane]);
        if (!transfer.agrees(first)) {
            fault_of(first_thread + lane, EMULATED_COLLECTIVE, transfer.site,
                     "asks for another matrix than lane 0");
        }
        for (uint32_t i = 0; i < 2; i++) {
            T *place = transfer.place(lane / 4, lane % 4 * 2 + i);
            if (shared) {
                look(transfer, place, first_thread + lane);
            } else if (watching != nullptr) {
                Traffic::Way way = transfer.stores ? Traffic::Way::write : Traffic::Way::read;
                watching->touch(place, sizeof(T), way);
            }
            T *from = transfer.stores ? transfer.elements + i : place;
            T *to = transfer.stores ? place : transfer.elements + i;
            std::memcpy(to, from, sizeof(T));
        }
    }
    counts.matrix_count++;
}

constexpr uint32_t all_lanes = ~0u;
constexpr Collective product_collective{"a matrix product", perform_product};

template <class T>
constexpr Collective load_collective{"a matrix load", perform_transfer<T>};
template <class T>
constexpr Collective store_collective{"a matrix store", perform_transfer<T>};

} // namespace

void multiply_accumulate(Product &product, const Site &site) {
    rendezvous(product_collective, all_lanes, &product, site);
}

} // namespace emulator

namespace metal {

template <class T>
void simdgroup_load(simdgroup_matrix<T, 8, 8> &matrix, const T *from, ulong elements_per_row,
                    ulong2 origin, bool transposed, Site site) {
    emulator::Transfer<T> transfer{matrix.elements, const_cast<T *>(from), elements_per_row,
                                   origin,          transposed,            false,
                                   site};
    emulator::rendezvous(emulator::load_collective<T>, emulator::all_lanes, &transfer, site);
}

template <class T>
void simdgroup_store(const simdgroup_matrix<T, 8, 8> &matrix, T *to, ulong elements_per_row,
                     ulong2 origin, bool transposed, Site site) {
    simdgroup_matrix<T, 8, 8> stored = matrix;
    emulator::Transfer<T> transfer{stored.elements, to,   elements_per_row, origin,
                                   transposed,      true, site};
    emulator::rendezvous(emulator::store_collective<T>, emulator::all_lanes, &transfer, site);
}

#define INSTANCES(T)                                                                \
    template void simdgroup_load(simdgroup_matrix<T, 8, 8> &, const T *, ulong,     \
                                 ulong2, bool, Site);                               \
    template void simdgroup_store(const simdgroup_matrix<T, 8, 8> &, T *, ulong,    \
                                  ulong2, bool, Site);

INSTANCES(float)
INSTANCES(half)
INSTANCES(bfloat)

} // namespace metal
