/* Micro-kernels for 32-bit cores without packed arithmetic that keep weights in bytes: membranes as in esnn_pairs.h,
 * a weight as w + 128 (w + 32 where all lie in -32...31), four in a word as 0, 2, 1, 3. Two masks take two pairs out
 * of a word; the constant that the bytes have too much is taken off again. All counts are multiples of 4. */
#ifndef ESNN_BYTES_H
#define ESNN_BYTES_H

#include <stdint.h>

#include "esnn_pairs.h"

typedef const uint32_t __attribute__((may_alias)) esnn_quad;

#define ESNN_BYTES_ODD 0x00FF00FFu

/* u[r * u_step + k] += w[r * w_step + k] - excess for r < rows, k < n. */
#define ESNN_BYTES_ROWS(name, excess)                                                                         \
  static __attribute__((noinline, unused)) void name(int16_t *u, const uint8_t *w, int32_t n, int32_t rows,   \
                                                     int32_t u_step, int32_t w_step) {                       \
    esnn_pair *to = (esnn_pair *)(void *)u;                                                                  \
    u_step = (u_step - n) / 2;                                                                               \
    w_step -= n;                                                                                             \
    _Pragma("GCC unroll 1") \
    for (; rows > 0; --rows) {                                                                               \
      int32_t left = n;                                                                                      \
      for (; left > 0; left -= 4, to += 2, w += 4) {                                                         \
        uint32_t word = *(esnn_quad *)(const void *)w;                                                 \
        to[0] += (word & ESNN_BYTES_ODD) - (excess)*0x00010001u;                                             \
        to[1] += (word >> 8 & ESNN_BYTES_ODD) - (excess)*0x00010001u;                                        \
      }                                                                                                      \
      to += u_step;                                                                                          \
      w += w_step;                                                                                           \
    }                                                                                                        \
  }

ESNN_BYTES_ROWS(esnn_rows_bytes, 128u)
ESNN_BYTES_ROWS(esnn_rows6_bytes, 32u)

/* Four events that reach the same membranes, in one pass over them; their weights begin at w + at[0...3]. */
#define ESNN_BYTES_FOUR(name, ...)                                                                            \
  static __attribute__((noinline, unused)) void name(int16_t *u, const uint8_t *w, const int32_t *at,         \
                                                     int32_t n, int32_t rows, int32_t u_step,                \
                                                     int32_t w_step) {                                       \
    esnn_pair *to = (esnn_pair *)(void *)u;                                                                  \
    esnn_quad *a = (esnn_quad *)(const void *)(w + at[0]);                                       \
    esnn_quad *b = (esnn_quad *)(const void *)(w + at[1]);                                       \
    esnn_quad *c = (esnn_quad *)(const void *)(w + at[2]);                                       \
    esnn_quad *d = (esnn_quad *)(const void *)(w + at[3]);                                       \
    u_step = (u_step - n) / 2;                                                                               \
    w_step = (w_step - n) / 4;                                                                               \
    _Pragma("GCC unroll 1") \
    for (; rows > 0; --rows) {                                                                               \
      int32_t left = n;                                                                                      \
      for (; left > 0; left -= 4, to += 2) {                                                                 \
        uint32_t low = to[0], high = to[1];                                                                  \
        __VA_ARGS__ to[0] = low;                                                                             \
        to[1] = high;                                                                                        \
      }                                                                                                      \
      to += u_step;                                                                                          \
      a += w_step;                                                                                           \
      b += w_step;                                                                                           \
      c += w_step;                                                                                           \
      d += w_step;                                                                                           \
    }                                                                                                        \
  }

#define ESNN_BYTES_ADD(word)                 \
  low += (word)&ESNN_BYTES_ODD;              \
  high += (word) >> 8 & ESNN_BYTES_ODD;

ESNN_BYTES_FOUR(esnn_four_bytes,
                uint32_t p = *a++, q = *b++, r = *c++, s = *d++;
                ESNN_BYTES_ADD(p) ESNN_BYTES_ADD(q) ESNN_BYTES_ADD(r) ESNN_BYTES_ADD(s) low -= 0x02000200u;
                high -= 0x02000200u;)
/* Four bytes of -32...31, each 32 more, add up in a byte and are widened once. */
ESNN_BYTES_FOUR(esnn_four6_bytes,
                uint32_t sum = *a++ + *b++ + *c++ + *d++;
                ESNN_BYTES_ADD(sum) low -= 0x00800080u;
                high -= 0x00800080u;)

#endif
