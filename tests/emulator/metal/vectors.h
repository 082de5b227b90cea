/* Metal's scalar and vector types. */
#pragma once

#include <cstdint>
#include <type_traits>

using uint = unsigned int;
using ulong = unsigned long;
using ushort = unsigned short;
using uchar = unsigned char;
using half = _Float16;

/* The upper half of a float, to which it is rounded, ties to even. Arithmetic is float's. */
struct bfloat {
    uint16_t bits;

    bfloat() = default;

    bfloat(float x) {
        uint32_t word = __builtin_bit_cast(uint32_t, x);
        uint32_t rounded = (word + 0x7fff + (word >> 16 & 1)) >> 16;
        bits = static_cast<uint16_t>(x != x ? word >> 16 | 0x40 : rounded);
    }

    operator float() const { return __builtin_bit_cast(float, uint32_t{bits} << 16); }
};

namespace metal {

template <class T, uint n>
struct vec;

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
    T x, y;

    vec() = default;
    vec(T all) : x(all), y(all) {}
    vec(T x, T y) : x(x), y(y) {}
    T &operator[](uint i) { return i == 0 ? x : y; }
    const T &operator[](uint i) const { return i == 0 ? x : y; }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
    T x, y, z;

    vec() = default;
    vec(T all) : x(all), y(all), z(all) {}
    vec(T x, T y, T z) : x(x), y(y), z(z) {}
    T &operator[](uint i) { return i == 0 ? x : i == 1 ? y : z; }
    const T &operator[](uint i) const { return i == 0 ? x : i == 1 ? y : z; }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
    T x, y, z, w;

    vec() = default;
    vec(T all) : x(all), y(all), z(all), w(all) {}
    vec(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}

    template <class U>
    explicit vec(const vec<U, 4> &other)
        : x(static_cast<T>(other.x)), y(static_cast<T>(other.y)), z(static_cast<T>(other.z)),
          w(static_cast<T>(other.w)) {}

    T &operator[](uint i) { return i == 0 ? x : i == 1 ? y : i == 2 ? z : w; }
    const T &operator[](uint i) const { return i == 0 ? x : i == 1 ? y : i == 2 ? z : w; }
};

/* An operator element by element, of two vectors or of one and a scalar. */
#define VECTOR_OPERATOR(op)                                                         \
    template <class T, uint n>                                                      \
    vec<T, n> operator op(vec<T, n> a, vec<T, n> b) {                               \
        for (uint i = 0; i < n; i++) {                                              \
            a[i] = static_cast<T>(a[i] op b[i]);                                    \
        }                                                                           \
        return a;                                                                   \
    }                                                                               \
    template <class T, uint n>                                                      \
    vec<T, n> operator op(vec<T, n> a, std::type_identity_t<T> b) {                 \
        return a op vec<T, n>(b);                                                   \
    }                                                                               \
    template <class T, uint n>                                                      \
    vec<T, n> operator op(std::type_identity_t<T> a, vec<T, n> b) {                 \
        return vec<T, n>(a) op b;                                                   \
    }                                                                               \
    template <class T, uint n, class Other>                                         \
    vec<T, n> &operator op##=(vec<T, n> &a, Other b) {                              \
        return a = a op b;                                                          \
    }

VECTOR_OPERATOR(+)
VECTOR_OPERATOR(-)
VECTOR_OPERATOR(*)
VECTOR_OPERATOR(/)
VECTOR_OPERATOR(&)
VECTOR_OPERATOR(|)
VECTOR_OPERATOR(^)
VECTOR_OPERATOR(<<)
VECTOR_OPERATOR(>>)

#undef VECTOR_OPERATOR

} // namespace metal

#define VECTOR_TYPES(scalar)                                                        \
    using scalar##2 = metal::vec<scalar, 2>;                                        \
    using scalar##3 = metal::vec<scalar, 3>;                                        \
    using scalar##4 = metal::vec<scalar, 4>;

VECTOR_TYPES(char)
VECTOR_TYPES(uchar)
VECTOR_TYPES(short)
VECTOR_TYPES(ushort)
VECTOR_TYPES(int)
VECTOR_TYPES(uint)
VECTOR_TYPES(long)
VECTOR_TYPES(ulong)
VECTOR_TYPES(half)
VECTOR_TYPES(bfloat)
VECTOR_TYPES(float)

#undef VECTOR_TYPES

/* The same bits as another type of that size. */
template <class To, class From>
To as_type(From value) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
    return __builtin_bit_cast(To, value);
}
