/* 8 x 8 matrices that a SIMD group holds together. Which lane holds what is not laid down, so
 * kernels cannot ask; only loads, stores and products are here. */
#pragma once

#include "simdgroup.h"

namespace metal {

/* Two neighbours of a row in each lane. */
template <class T, int columns, int rows>
struct simdgroup_matrix {
    static_assert(columns == 8 && rows == 8, "Metal has no other");

    T elements[2];

    simdgroup_matrix() = default;

    /* A diagonal of `value`, and else zeros. */
    explicit simdgroup_matrix(T value) {
        uint row = emulator::lane() / 4, column = emulator::lane() % 4 * 2;
        elements[0] = row == column ? value : T(0.0f);
        elements[1] = row == column + 1 ? value : T(0.0f);
    }
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int columns, int rows>
simdgroup_matrix<T, columns, rows> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, columns, rows> matrix;
    matrix.elements[0] = matrix.elements[1] = value;
    return matrix;
}

/* Element (row, column) is at [origin.y + row][origin.x + column] of the memory, or, where it
 * is transposed, at [origin.y + column][origin.x + row]. For float, half and bfloat. */
template <class T>
void simdgroup_load(simdgroup_matrix<T, 8, 8> &matrix, const T *from,
                    ulong elements_per_row = 8, ulong2 origin = 0, bool transposed = false,
                    Site site = Site::current());

template <class T>
void simdgroup_store(const simdgroup_matrix<T, 8, 8> &matrix, T *to,
                     ulong elements_per_row = 8, ulong2 origin = 0, bool transposed = false,
                     Site site = Site::current());

} // namespace metal

namespace emulator {

/* The lanes' two elements each, row by row, as floats: all of the types fit in it. */
struct Product {
    float a[2], b[2], d[2];
};

/* d += a b, fused, from column 0 of a to column 7; the hardware has another order. */
void multiply_accumulate(Product &product, const Site &site);

} // namespace emulator

namespace metal {

template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d,
                                   const simdgroup_matrix<A, 8, 8> &a,
                                   const simdgroup_matrix<B, 8, 8> &b,
                                   const simdgroup_matrix<C, 8, 8> &c,
                                   Site site = Site::current()) {
    emulator::Product product;
    for (uint i = 0; i < 2; i++) {
        product.a[i] = static_cast<float>(a.elements[i]);
        product.b[i] = static_cast<float>(b.elements[i]);
        product.d[i] = static_cast<float>(c.elements[i]);
    }
    emulator::multiply_accumulate(product, site);
    d.elements[0] = static_cast<D>(product.d[0]);
    d.elements[1] = static_cast<D>(product.d[1]);
}

template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                        const simdgroup_matrix<B, 8, 8> &b, Site site = Site::current()) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0.0f)),
                                  site);
}

} // namespace metal
