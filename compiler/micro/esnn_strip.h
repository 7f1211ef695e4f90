/* The latency encoder on cores without vectors: a strip of output rows by scatter, then its spikes by step.
 *
 * Only samples that differ from the zero point cost anything, and only windows that they reach are looked at: all
 * others spike as a sum of 0 does, which the compiler knows. Weights are words: an int32 each, or two rows of taps
 * as int16 pairs, which SMLAD multiplies and adds at once. Every geometry argument is a constant where it is called. */
#ifndef ESNN_STRIP_H
#define ESNN_STRIP_H

#include <stdint.h>

#define ESNN_INLINE static inline __attribute__((always_inline))

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

#define ESNN_MLA(op)                                                                                        \
  __asm__ volatile("subs %[k], %[k], #16\n"                                                                 \
                   "blt 2f\n"                                                                               \
                   "1:\n" ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op) ESNN_MLA_4(op)                       \
                   "subs %[k], %[k], #16\n"                                                                 \
                   "bge 1b\n"                                                                               \
                   "2: adds %[k], %[k], #12\n"                                                              \
                   "blt 4f\n"                                                                               \
                   "3:\n" ESNN_MLA_4(op)                                                                    \
                   "subs %[k], %[k], #4\n"                                                                  \
                   "bge 3b\n"                                                                               \
                   "4:\n"                                                                                   \
                   : [acc] "+r"(acc), [w] "+r"(w), [k] "+r"(n)                                              \
                   : [v] "r"(v)                                                                             \
                   : "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "cc", "memory")

ESNN_INLINE void esnn_mla(int32_t *acc, const uint32_t *w, uint32_t v, int32_t n, int32_t pairs) {
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
ESNN_INLINE int32_t esnn_strip(int32_t *strip, const uint32_t *weights, const void *x, int32_t first,
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
  for (iy = from; iy < to; ++iy) {
    const int32_t line = iy * w * ci;
    for (ix = 0; ix < low * ci && esnn_sample(x, dtype, line + ix) == zero; ++ix) {
    }
    low = ix / ci < low ? ix / ci : low;
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
  for (r = 0; r < rows; ++r) {
    int32_t *line = strip + r * columns * co;
    int32_t group;
    esnn_zero(line + touched[0] * co, (touched[1] - touched[0]) * co);
    for (group = 0; group < groups; ++group) {
      int32_t ya = (first + r) * sy - top + group * per;
      int32_t a_in = ya >= 0 && ya < h;
      int32_t b_in = pairs && ya + 1 >= 0 && ya + 1 < h && group * per + 1 < kh;
      int32_t i = ya * w * ci;
      if (!a_in && !b_in) {
        continue;
      }
      for (ix = low; ix <= high; ++ix) {
        int32_t c;
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

/* Whether none of four channels' sums in a window reaches its limit: the signs of all differences, joined. */
ESNN_INLINE int32_t esnn_quiet(const int32_t *window, const int32_t *limit, int32_t ph, int32_t pw, int32_t line,
                               int32_t co) {
  int32_t signs = -1, py, px;
  int32_t a = limit[0], b = limit[1], c = limit[2], d = limit[3];
  for (py = 0; py < ph; ++py) {
    for (px = 0; px < pw; ++px) {
      const int32_t *at = window + py * line + px * co;
#if defined(__thumb2__)
      __asm__("ldmia %[at], {r4-r7}\n"
              "sub r4, r4, %[a]\n"
              "and %[s], %[s], r4\n"
              "sub r5, r5, %[b]\n"
              "and %[s], %[s], r5\n"
              "sub r6, r6, %[c]\n"
              "and %[s], %[s], r6\n"
              "sub r7, r7, %[d]\n"
              "and %[s], %[s], r7\n"
              : [s] "+r"(signs)
              : [at] "r"(at), [a] "r"(a), [b] "r"(b), [c] "r"(c), [d] "r"(d), "m"(*(const int32_t(*)[4])at)
              : "r4", "r5", "r6", "r7");
#else
      signs &= (at[0] - a) & (at[1] - b) & (at[2] - c) & (at[3] - d);
#endif
    }
  }
  return signs < 0;
}

ESNN_INLINE void esnn_put(void *map, int32_t bits, int32_t i, uint32_t word) {
  if (bits == 8) {
    ((uint8_t *)map)[i] = (uint8_t)word;
  } else if (bits == 16) {
    ((uint16_t *)map)[i] = (uint16_t)word;
  } else {
    ((uint32_t *)map)[i] = word;
  }
}

ESNN_INLINE uint32_t esnn_get(const void *map, int32_t bits, int32_t i) {
  return bits == 8 ? ((const uint8_t *)map)[i] : bits == 16 ? ((const uint16_t *)map)[i] : ((const uint32_t *)map)[i];
}

/* Spikes of pooled row `row`: planes[steps, plane] of words; counts[steps] += events. limits[steps - 1, co] do not
 * increase with the step and lie within the sums' range plus one, so that differences fit.
 * blank[steps, words + 1]: the words, and the events, of a window whose sums are all 0. */
ESNN_INLINE int32_t esnn_strip_spikes(int32_t *strip, const int32_t *limits, const uint32_t *blank, int32_t row,
                                      void *planes, int32_t *counts, const int32_t *touched, int32_t columns,
                                      int32_t margin, int32_t co, int32_t channels, int32_t ph, int32_t pw,
                                      int32_t across, int32_t bits, int32_t words, int32_t plane, int32_t steps) {
  int32_t column, k, t, silent = 0, blanks = 0;
  int32_t base = row * across * words;
  for (column = 0; column < across; ++column, base += words) {
    const int32_t *window = strip + (column * pw + margin) * co;
    if (column * pw + margin + pw <= touched[0] || column * pw + margin >= touched[1]) {
      for (t = 0; t < steps; ++t) {
        for (k = 0; k < words; ++k) {
          esnn_put(planes, bits, t * plane + base + k, blank[t * (words + 1) + k]);
        }
      }
      ++blanks;
      continue;
    }
    /* Columns of the window that nothing reaches hold what an earlier strip has left there. */
    for (k = 0; k < pw; ++k) {
      int32_t at = column * pw + k + margin;
      if (at < touched[0] || at >= touched[1]) {
        for (t = 0; t < ph; ++t) {
          esnn_zero(strip + (t * columns + at) * co, co);
        }
      }
    }
    for (k = 0; k < words; ++k) {
      uint32_t late = 0;
      int32_t stop = channels - k * bits < bits ? channels - k * bits : bits, j;
      for (j = 0; j < stop; j += 4) {
        int32_t o = k * bits + j, n = stop - j < 4 ? stop - j : 4, c;
        if (steps == 1 || esnn_quiet(window + o, limits + (steps - 2) * co + o, ph, pw, columns * co, co)) {
          late |= ((1u << n) - 1u) << j;
          silent += n;
          continue;
        }
        for (c = 0; c < n; ++c) {
          int32_t best = window[o + c], py, px;
          uint32_t bit = 1u << (j + c);
          for (py = 0; py < ph; ++py) {
            for (px = 0; px < pw; ++px) {
              int32_t sum = window[(py * columns + px) * co + o + c];
              best = sum > best ? sum : best;
            }
          }
          for (t = steps - 1; t > 0 && best >= limits[(t - 1) * co + o + c]; --t) {
          }
          if (t == steps - 1) {
            late |= bit;
            ++silent;
          } else {
            int32_t at = t * plane + base + k;
            esnn_put(planes, bits, at, esnn_get(planes, bits, at) | bit);
            ++counts[t];
          }
        }
      }
      esnn_put(planes, bits, (steps - 1) * plane + base + k, late);
    }
  }
  counts[steps - 1] += silent;
  for (t = 0; t < steps && blanks != 0; ++t) {
    counts[t] += blanks * (int32_t)blank[t * (words + 1) + words];
  }
  return 0;
}

#endif
