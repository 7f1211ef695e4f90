/* The latency encoder on cores without vectors: a strip of output rows by scatter, then its spikes by step.
 *
 * Only samples that differ from the zero point cost anything, and only windows that they reach are looked at: all
 * others spike as a sum of 0 does, which the compiler knows. Weights are words: an int32 each, or two rows of taps
 * as int16 pairs, which SMLAD multiplies and adds at once. Every geometry argument is a constant where it is called. */
#ifndef ESNN_STRIP_H
#define ESNN_STRIP_H

#include <stdint.h>

#include "esnn_bits.h"
#include "esnn_planes.h"

/* Sample i of dtype uint8 (0), int8 (1) or int16 (2). */
ESNN_INLINE int32_t esnn_sample(const void *x, int32_t dtype, int32_t i) {
  return dtype == 0 ? ((const uint8_t *)x)[i] : dtype == 1 ? ((const int8_t *)x)[i] : ((const int16_t *)x)[i];
}

/* acc[k] += v * w[k] for k < n, a multiple of 4; for pairs v and w hold two int16 each. */
#define ESNN_MLA_4(op)                 \
  "ldmia %[acc], {r4-r7}\n"            \
  "ldmia %[w]!, {r8-r11}\n"            \
  op " r4, r8, %[v], r4\n"             \
  op " r5, r9, %[v], r5\n"             \
  op " r6, r10, %[v], r6\n"            \
  op " r7, r11, %[v], r7\n"            \
  "stmia %[acc]!, {r4-r7}\n"

#define ESNN_MLA_20(op) ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op)

/* 5 x 5 taps of 8 or 16 channels are whole forties; what is left goes by fours. */
#define ESNN_MLA(op)                                                                                        \
  __asm__ volatile("subs %[k], %[k], #40\n"                                                                 \
                   "blt 2f\n"                                                                               \
                   "1:\n" ESNN_MLA_20(op) ESNN_MLA_20(op)                                                   \
                   "subs %[k], %[k], #40\n"                                                                 \
                   "bge 1b\n"                                                                               \
                   "2: adds %[k], %[k], #24\n"                                                              \
                   "blt 4f\n"                                                                               \
                   "3:\n" ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op)                       \
                   "subs %[k], %[k], #16\n"                                                                 \
                   "bge 3b\n"                                                                               \
                   "4: adds %[k], %[k], #12\n"                                                              \
                   "blt 6f\n"                                                                               \
                   "5:\n" ESNN_MLA_4(op)                                                                    \
                   "subs %[k], %[k], #4\n"                                                                  \
                   "bge 5b\n"                                                                               \
                   "6:\n"                                                                                   \
                   : [acc] "+r"(acc), [w] "+r"(w), [k] "+r"(n)                                              \
                   : [v] "r"(v)                                                                             \
                   : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "cc", "memory")

ESNN_APART void esnn_mla(int32_t *acc, const uint32_t *w, uint32_t v, int32_t n, int32_t pairs) {
#if defined(__ARM_FEATURE_DSP)
  if (pairs) {
    ESNN_MLA("smlad");
    return;
  }
#endif
#if defined(__thumb2__)
  if (!pairs) {
    ESNN_MLA("mla");
    return;
  }
#endif
  for (; n > 0; n -= 4, acc += 4, w += 4) {
    int32_t k;
    for (k = 0; k < 4; ++k) {
      if (pairs) {
        acc[k] += (int16_t)w[k] * (int16_t)v + (int16_t)(w[k] >> 16) * (int16_t)(v >> 16);
      } else {
        acc[k] += (int32_t)w[k] * (int32_t)v;
      }
    }
  }
}

/* n words, a multiple of 4. */
ESNN_INLINE void esnn_zero(int32_t *at, int32_t n) {
#if defined(__thumb2__)
  __asm__ volatile("movs r4, #0\n mov r5, r4\n mov r6, r4\n mov r7, r4\n"
                   "1: stmia %[at]!, {r4-r7}\n"
                   "subs %[n], %[n], #4\n"
                   "bgt 1b\n"
                   : [at] "+r"(at), [n] "+r"(n)
                   :
                   : "r4", "r5", "r6", "r7", "cc", "memory");
#else
  for (; n > 0; n -= 4, at += 4) {
    at[0] = at[1] = at[2] = at[3] = 0;
  }
#endif
}

/* Sums of `rows` output rows from row `first` on into strip[rows, columns, co]; touched = first and last + 1 column of
 * the strip that any sample reaches, equal where none does. The strip is valid there only.
 * x[h, w, ci]; weights[ci, sx, groups of taps in y, taps in x reversed, co]; taps: in x, per phase. */
ESNN_APART int32_t esnn_strip(int32_t *strip, const uint32_t *weights, const void *x, int32_t first,
                               int32_t *touched, int32_t dtype, int32_t zero, int32_t rows, int32_t columns,
                               int32_t margin, int32_t h, int32_t w, int32_t ci, int32_t co, int32_t sy, int32_t sx,
                               int32_t top, int32_t left, int32_t kh, int32_t taps, int32_t pairs) {
  int32_t per = pairs ? 2 : 1;
  int32_t groups = (kh + per - 1) / per;
  int32_t from = first * sy - top;
  int32_t to = from + (rows - 1) * sy + kh;
  int32_t low = w, high = -1, ix, iy, r;
  from = from < 0 ? 0 : from;
  to = to > h ? h : to;
#pragma GCC unroll 1
  for (iy = from; iy < to; ++iy) {
    const int32_t line = iy * w * ci;
#pragma GCC unroll 1
    for (ix = 0; ix < low * ci && esnn_sample(x, dtype, line + ix) == zero; ++ix) {
    }
    low = ix / ci < low ? ix / ci : low;
#pragma GCC unroll 1
    for (ix = w * ci - 1; ix >= (high + 1) * ci && esnn_sample(x, dtype, line + ix) == zero; --ix) {
    }
    high = ix >= (high + 1) * ci ? ix / ci : high;
  }
  if (high < 0) {
    touched[0] = touched[1] = 0;
    return 0;
  }
  touched[0] = (low + left) / sx - (taps - 1) + margin;
  touched[1] = (high + left) / sx + margin + 1;
#pragma GCC unroll 1
  for (r = 0; r < rows; ++r) {
    int32_t *line = strip + r * columns * co;
    int32_t group;
    esnn_zero(line + touched[0] * co, (touched[1] - touched[0]) * co);
#pragma GCC unroll 1
    for (group = 0; group < groups; ++group) {
      int32_t ya = (first + r) * sy - top + group * per;
      int32_t a_in = ya >= 0 && ya < h;
      int32_t b_in = pairs && ya + 1 >= 0 && ya + 1 < h && group * per + 1 < kh;
      int32_t i = ya * w * ci;
      if (!a_in && !b_in) {
        continue;
      }
#pragma GCC unroll 1
      for (ix = low; ix <= high; ++ix) {
        int32_t c;
#pragma GCC unroll 1
        for (c = 0; c < ci; ++c) {
          int32_t at = i + ix * ci + c;
          uint32_t v = a_in ? (uint32_t)(esnn_sample(x, dtype, at) - zero) : 0u;
          if (pairs) {
            uint32_t b = b_in ? (uint32_t)(esnn_sample(x, dtype, at + w * ci) - zero) : 0u;
            v = (v & 0xFFFFu) | b << 16;
          }
          if (v != 0u) {
            int32_t q = (ix + left) / sx, phase = (ix + left) % sx;
            esnn_mla(line + (q - (taps - 1) + margin) * co,
                     weights + ((c * sx + phase) * groups + group) * taps * co, v, taps * co, pairs);
          }
        }
      }
    }
  }
  return 0;
}

#if defined(__thumb2__)
/* Joins the signs of four channels' sums less their limits in r4-r7; goes to the next column of the strip. */
#define ESNN_LOUD_4                                                                       \
  "ldmia %[at], {r8-r11}\n"                                                               \
  "add %[at], %[at], %[next]\n"                                                           \
  "sub r8, r8, r4\n"                                                                      \
  "and %[signs], %[signs], r8\n"                                                          \
  "sub r9, r9, r5\n"                                                                      \
  "and %[signs], %[signs], r9\n"                                                          \
  "sub r10, r10, r6\n"                                                                    \
  "and %[signs], %[signs], r10\n"                                                         \
  "sub r11, r11, r7\n"                                                                    \
  "and %[signs], %[signs], r11\n"
#endif

/* Negative where none of four channels' sums in `pw` columns reaches its limit. */
ESNN_INLINE int32_t esnn_signs(int32_t signs, const int32_t *at, const int32_t *limit, int32_t pw, int32_t co) {
  int32_t px;
#if defined(__thumb2__)
  if (pw == 2) {
    __asm__("ldmia %[limit], {r4-r7}\n" ESNN_LOUD_4 ESNN_LOUD_4
            : [signs] "+r"(signs), [at] "+r"(at)
            : [limit] "r"(limit), [next] "rI"(4 * co)
            : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "memory");
    return signs;
  }
#endif
  for (px = 0; px < pw; ++px, at += co) {
#if defined(__thumb2__)
    __asm__("ldmia %[limit], {r4-r7}\n" ESNN_LOUD_4
            : [signs] "+r"(signs), [at] "+r"(at)
            : [limit] "r"(limit), [next] "rI"(0)
            : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "memory");
#else
    signs &= (at[0] - limit[0]) & (at[1] - limit[1]) & (at[2] - limit[2]) & (at[3] - limit[3]);
#endif
  }
  return signs;
}

/* Bit g: a sum of channels 4 g ... 4 g + 3 in a window reaches its limit, for 4 groups <= n. */
ESNN_APART uint32_t esnn_loud(const int32_t *window, const int32_t *limit, int32_t n, int32_t ph, int32_t pw,
                              int32_t line, int32_t co) {
  uint32_t loud = 0, bit = 1;
#pragma GCC unroll 1
  for (; n > 0; n -= 4, window += 4, limit += 4, bit <<= 1) {
    int32_t signs = -1, py;
    for (py = 0; py < ph; ++py) {
      signs = esnn_signs(signs, window + py * line, limit, pw, co);
    }
    if (signs >= 0) {
      loud |= bit;
    }
  }
  return loud;
}

/* The step, from 0, in which the largest sum of a channel's window reaches its limit; the last one at the latest. */
ESNN_APART int32_t esnn_spike_step(const int32_t *window, const int32_t *limit, int32_t ph, int32_t pw, int32_t line,
                                   int32_t co, int32_t steps) {
  int32_t best = *window, t = steps - 1, py, px;
  for (py = 0; py < ph; ++py) {
    for (px = 0; px < pw; ++px) {
      int32_t sum = window[py * line + px * co];
      best = sum > best ? sum : best;
    }
  }
#pragma GCC unroll 1
  for (limit += (steps - 2) * co; t > 0 && best >= *limit; limit -= co) {
    --t;
  }
  return t;
}

/* Spikes of pooled row `row` in steps begin + 1 ... end: bits in planes[steps, plane] of words, which are 0 before;
 * counts[steps] += events. limits[steps - 1, co] do not increase with the step and lie within the sums' range plus
 * one, so that differences fit. blank[steps, words + 1]: the words, and the events, of a window whose sums are 0. */
ESNN_APART int32_t esnn_strip_spikes(int32_t *strip, const int32_t *limits, const uint32_t *blank, int32_t row,
                                     void *planes, int32_t *counts, const int32_t *touched, int32_t begin,
                                     int32_t end, int32_t columns, int32_t margin, int32_t co, int32_t channels,
                                     int32_t ph, int32_t pw, int32_t across, int32_t bits, int32_t words,
                                     int32_t plane, int32_t steps) {
  int32_t column, k, t, blanks = 0;
  int32_t base = row * across * words;
#pragma GCC unroll 1
  for (column = 0; column < across; ++column, base += words) {
    const int32_t *window = strip + (column * pw + margin) * co;
    int32_t at = column * pw + margin;
    if (at + pw <= touched[0] || at >= touched[1]) {
#pragma GCC unroll 1
      for (t = begin; t < end; ++t) {
        for (k = 0; k < words; ++k) {
          esnn_put(planes, bits, t * plane + base + k, blank[t * (words + 1) + k]);
        }
      }
      ++blanks;
      continue;
    }
    /* Columns of the window that nothing reaches hold what an earlier strip has left there. */
    for (k = 0; k < pw; ++k, ++at) {
      if (at < touched[0] || at >= touched[1]) {
        for (t = 0; t < ph; ++t) {
          esnn_zero(strip + (t * columns + at) * co, co);
        }
      }
    }
    for (k = 0; k < words; ++k) {
      int32_t n = channels - k * bits < bits ? channels - k * bits : bits;
      uint32_t loud = ~0u >> (32 - (n + 3) / 4);
      if (end == 1 && steps > 1) {
        loud = esnn_loud(window + k * bits, limits + k * bits, n, ph, pw, columns * co, co);
      }
#pragma GCC unroll 1
      for (; loud != 0u; loud &= loud - 1u) {
        int32_t j = 4 * esnn_first_bit(loud), stop = j + 4 < n ? j + 4 : n;
#pragma GCC unroll 1
        for (; j < stop; ++j) {
          t = esnn_spike_step(window + k * bits + j, limits + k * bits + j, ph, pw, columns * co, co, steps);
          if (t >= begin && t < end) {
            int32_t to = t * plane + base + k;
            esnn_put(planes, bits, to, esnn_get(planes, bits, to) | 1u << j);
            ++counts[t];
          }
        }
      }
    }
  }
  for (t = begin; t < end && blanks != 0; ++t) {
    counts[t] += blanks * (int32_t)blank[t * (words + 1) + words];
  }
  return 0;
}

#endif
