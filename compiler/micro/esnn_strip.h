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

#define ESNN_MLA_TWO                   \
  "ldmia %[acc], {r4-r7}\n"            \
  "ldmia %[w]!, {r8-r11}\n"            \
  "smlad r4, r8, %[v], r4\n"           \
  "smlad r5, r9, %[v], r5\n"           \
  "smlad r6, r10, %[v], r6\n"          \
  "smlad r7, r11, %[v], r7\n"          \
  "ldmia %[y]!, {r8-r11}\n"            \
  "smlad r4, r8, %[z], r4\n"           \
  "smlad r5, r9, %[z], r5\n"           \
  "smlad r6, r10, %[z], r6\n"          \
  "smlad r7, r11, %[z], r7\n"          \
  "stmia %[acc]!, {r4-r7}\n"

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

/* The same for two words of samples that reach the same sums: acc[k] += v * w[k] + z * y[k], of pairs. */
ESNN_APART void esnn_mla_two(int32_t *acc, const uint32_t *w, const uint32_t *y, uint32_t v, uint32_t z, int32_t n) {
#if defined(__ARM_FEATURE_DSP)
  __asm__ volatile("subs %[k], %[k], #16\n"
                   "blt 2f\n"
                   "1:\n" ESNN_MLA_TWO ESNN_MLA_TWO ESNN_MLA_TWO ESNN_MLA_TWO
                   "subs %[k], %[k], #16\n"
                   "bge 1b\n"
                   "2: adds %[k], %[k], #12\n"
                   "blt 4f\n"
                   "3:\n" ESNN_MLA_TWO
                   "subs %[k], %[k], #4\n"
                   "bge 3b\n"
                   "4:\n"
                   : [acc] "+r"(acc), [w] "+r"(w), [y] "+r"(y), [k] "+r"(n)
                   : [v] "r"(v), [z] "r"(z)
                   : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "cc", "memory");
#else
  esnn_mla(acc, w, v, n, 1);
  esnn_mla(acc, y, z, n, 1);
#endif
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

/* Adds what the samples of column ix in `kh` rows from sample `from` on contribute to a line of sums; `border`: rows may
 * lie outside the map. */
ESNN_INLINE void esnn_column(int32_t *line, const uint32_t *weights, const void *x, int32_t from, int32_t ix,
                             int32_t border, int32_t dtype, int32_t zero, int32_t margin, int32_t h, int32_t w,
                             int32_t ci, int32_t co, int32_t sx, int32_t left, int32_t kh, int32_t taps,
                             int32_t pairs) {
  int32_t per = pairs ? 2 : 1, groups = (kh + per - 1) / per, n = taps * co, c;
  int32_t q = (ix + left) / sx, phase = (ix + left) % sx;
  int32_t *acc = line + (q - (taps - 1) + margin) * co;
#pragma GCC unroll 1
  for (c = 0; c < ci; ++c) {
    const uint32_t *at = weights + (c * sx + phase) * groups * n, *held = at;
    int32_t i = from + ix * ci + c, k;
    uint32_t other = 0; /* a word of samples that waits for a second one */
    for (k = 0; k < groups; ++k, i += per * w * ci, at += n) {
      uint32_t v = 0;
      if (!border || (i >= 0 && i < h * w * ci)) {
        v = (uint32_t)(esnn_sample(x, dtype, i) - zero);
      }
      if (pairs) {
        int32_t below = i + w * ci;
        v &= 0xFFFFu;
        if (2 * k + 1 < kh && (!border || (below >= 0 && below < h * w * ci))) {
          v |= (uint32_t)(esnn_sample(x, dtype, below) - zero) << 16;
        }
      }
      if (v == 0u) {
        continue;
      }
      if (!pairs) {
        esnn_mla(acc, at, v, n, 0);
      } else if (other == 0u) {
        other = v;
        held = at;
      } else {
        esnn_mla_two(acc, held, at, other, v, n);
        other = 0;
      }
    }
    if (other != 0u) {
      esnn_mla(acc, held, other, n, 1);
    }
  }
}

/* Sums of `rows` output rows from row `first` on into strip[rows, columns, co]; touched = first and last + 1 column of
 * the strip that any sample reaches, equal where none does. The strip is valid there only.
 * x[h, w, ci]; weights[ci, sx, groups of taps in y, taps in x reversed, co]; taps: in x, per phase. */
ESNN_APART int32_t esnn_strip(int32_t *strip, const uint32_t *weights, const void *x, int32_t first,
                               int32_t *touched, int32_t dtype, int32_t zero, int32_t rows, int32_t columns,
                               int32_t margin, int32_t h, int32_t w, int32_t ci, int32_t co, int32_t sy, int32_t sx,
                               int32_t top, int32_t left, int32_t kh, int32_t taps, int32_t pairs) {
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
    int32_t group = ((first + r) * sy - top) * w * ci; /* the first sample of the first row of taps */
    esnn_zero(line + touched[0] * co, (touched[1] - touched[0]) * co);
    if (group >= 0 && group + kh * w * ci <= h * w * ci) {
#pragma GCC unroll 1
      for (ix = low; ix <= high; ++ix) {
        esnn_column(line, weights, x, group, ix, 0, dtype, zero, margin, h, w, ci, co, sx, left, kh, taps, pairs);
      }
    } else {
#pragma GCC unroll 1
      for (ix = low; ix <= high; ++ix) {
        esnn_column(line, weights, x, group, ix, 1, dtype, zero, margin, h, w, ci, co, sx, left, kh, taps, pairs);
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
