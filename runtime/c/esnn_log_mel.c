/* edgesnn C core: log-mel front end, bit for bit as compiler/front_end.py defines it. */
#include "esnn_stream.h"

/* 256 log2(1 + (i + 1/2) / 64) */
static const uint8_t esnn_log2[64] = {
  3, 9, 14, 20, 25, 30, 36, 41, 46, 51, 56, 61, 66, 71, 75, 80,
  85, 89, 94, 98, 103, 107, 111, 116, 120, 124, 128, 132, 136, 140, 144, 148,
  152, 155, 159, 163, 167, 170, 174, 178, 181, 185, 188, 192, 195, 198, 202, 205,
  208, 212, 215, 218, 221, 224, 228, 231, 234, 237, 240, 243, 246, 249, 252, 255
};

/* floor(a b / 2^32) */
static inline int32_t esnn_high(int32_t a, int32_t b) {
#if defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB == 1
  /* Cores with a product of 32 bits only: four products of halves, no sum of which overflows. */
  int32_t low_a = a & 0xFFFF, low_b = b & 0xFFFF;
  int32_t cross = (a >> 16) * low_b + (int32_t)((uint32_t)low_a * (uint32_t)low_b >> 16);
  int32_t other = low_a * (b >> 16) + (cross & 0xFFFF);
  return (a >> 16) * (b >> 16) + (cross >> 16) + (other >> 16);
#else
  return (int32_t)((int64_t)a * b >> 32);
#endif
}

/* z[j] = v[2j] + i v[2j + 1] of the windowed samples v, in the order of the bits of j reversed. */
static void esnn_windowed(const esnn_log_mel *front, const int16_t *ring, uint32_t first, int32_t *work) {
  const uint32_t points = front->points, frame = front->frame;
  uint32_t at = first, place = 0, i, k, bit;
  for (i = 0; i < points; i += 8u) {
    /* Four numbers whose places differ in the upper two bits, the first of which is the lowest bit of j. */
    int32_t *z = work + place;
    for (k = 0; k < 8u; ++k) {
      int32_t v = 0;
      if (i + k < frame) {
        v = ((int32_t)ring[at] * front->window[i + k]) >> 1;
        at = at + 1u == frame ? 0 : at + 1u;
      }
      z[(k & 2u) * points / 4u + (k & 4u) * points / 16u + (k & 1u)] = v;
    }
    for (bit = points / 8u; (place & bit) != 0; bit >>= 1) {
      place ^= bit;
    }
    place |= bit;
  }
}

/* Stages 1 and 2 together: turns of 0 and a quarter only, cos 0 = one. */
static void esnn_first_stages(int32_t *work, uint32_t points, int32_t one) {
  int32_t *z;
  for (z = work; z < work + points; z += 8) {
    int32_t ar = z[0] >> 1, ai = z[1] >> 1, br = esnn_high(z[2], one), bi = esnn_high(z[3], one);
    int32_t cr = z[4] >> 1, ci = z[5] >> 1, dr = esnn_high(z[6], one), di = esnn_high(z[7], one);
    int32_t er = ar + br, ei = ai + bi, fr = ar - br, fi = ai - bi;
    int32_t gr = esnn_high(cr + dr, one), gi = esnn_high(ci + di, one);
    int32_t hr = esnn_high(cr - dr, one), hi = esnn_high(ci - di, one);
    z[0] = (er >> 1) + gr;
    z[1] = (ei >> 1) + gi;
    z[4] = (er >> 1) - gr;
    z[5] = (ei >> 1) - gi;
    z[2] = (fr >> 1) + hi;
    z[3] = (fi >> 1) - hr;
    z[6] = (fr >> 1) - hi;
    z[7] = (fi >> 1) + hr;
  }
}

/* All butterflies of a stage that turn by one angle, from a number on: half is the distance of their two. */
static inline void esnn_butterflies(int32_t *a, const int32_t *end, uint32_t half, int32_t c, int32_t s) {
  for (; a < end; a += 4u * half) {
    int32_t *b = a + 2u * half;
    int32_t br = b[0], bi = b[1], ar = a[0] >> 1, ai = a[1] >> 1;
    int32_t tr = esnn_high(br, c) + esnn_high(bi, s), ti = esnn_high(bi, c) - esnn_high(br, s);
    a[0] = ar + tr;
    a[1] = ai + ti;
    b[0] = ar - tr;
    b[1] = ai - ti;
  }
}

static void esnn_transform(const esnn_log_mel *front, int32_t *work) {
  const uint32_t points = front->points, n = points / 4u;
  const int32_t *quarter = front->quarter, *end = work + points;
  uint32_t half, j, step;
  esnn_first_stages(work, points, quarter[0]);
  for (half = 4u; half < points / 2u; half *= 2u) {
    step = points / (2u * half);
    for (j = 0; j < half / 2u; ++j) {
      int32_t c = quarter[j * step], s = quarter[n - j * step];
      esnn_butterflies(work + 2u * j, end, half, c, s);
      esnn_butterflies(work + 2u * j + half, end, half, -s, c); /* a quarter further */
    }
  }
}

static inline uint32_t esnn_power(int32_t er, int32_t ei, int32_t odd_re, int32_t odd_im, int32_t c, int32_t s) {
  int32_t xr = (er >> 1) + esnn_high(odd_re, c) + esnn_high(odd_im, s);
  int32_t xi = (ei >> 1) + esnn_high(odd_im, c) - esnn_high(odd_re, s);
  return (uint32_t)((uint64_t)((int64_t)xr * xr + (int64_t)xi * xi) >> 26); /* |x| < 2^29 */
}

/* From the transform Z of pairs to the power p of the bins: p[k] takes the place of Z[k]'s real part, the last one
 * that of Z[0]'s imaginary part. */
static void esnn_powers(const esnn_log_mel *front, int32_t *work) {
  const uint32_t m = front->points / 2u, n = m / 2u;
  const int32_t *quarter = front->quarter;
  uint32_t k;
  for (k = 0; k <= n; ++k) {
    int32_t *a = work + 2u * k, *b = k == 0 ? work : work + 2u * (m - k);
    int32_t c = quarter[k], s = quarter[n - k];
    int32_t er = (a[0] + b[0]) >> 1, odd_re = (a[1] + b[1]) >> 1, re = b[0] - a[0], im = a[1] - b[1];
    uint32_t low = esnn_power(er, im >> 1, odd_re, re >> 1, c, s);
    uint32_t up = esnn_power(er, -im >> 1, odd_re, -re >> 1, -c, s);
    a[0] = (int32_t)low;
    if (k != n) {
      b[k == 0 ? 1 : 0] = (int32_t)up;
    }
  }
}

/* 256 log2(e), e >= 64 */
static int32_t esnn_logarithm(uint64_t e) {
  uint32_t top = (uint32_t)(e >> 32), n = 32, shift;
  if (top == 0) {
    top = (uint32_t)e;
    n = 0;
  }
  for (shift = 16; shift != 0; shift >>= 1) {
    if (top >> shift != 0) {
      top >>= shift;
      n += shift;
    }
  }
  return (int32_t)(n * 256u) + esnn_log2[(uint32_t)(e >> (n - 6u)) & 63u];
}

/* Filter b rises over the bins of band b and falls over those of band b + 1. */
static void esnn_bands(const esnn_log_mel *front, const int32_t *work, uint8_t *row) {
  const uint32_t last = front->points / 2u;
  uint64_t rising = 0; /* of the filter before */
  uint32_t k = 0;
  int32_t b;
  for (b = 0; b <= (int32_t)front->bands; ++b) {
    uint64_t up = 0, all = 0;
    for (; k <= last && front->band[k] <= b; ++k) {
      uint32_t p = (uint32_t)work[k == last ? 1u : 2u * k];
      if (front->band[k] == b) {
        up += (uint64_t)p * (uint16_t)front->rise[k];
        all += p;
      }
    }
    if (b > 0) {
      int32_t value = esnn_logarithm(rising + (all << 8) - up + 256u);
      int32_t scaled = ((value - front->offset[b - 1]) * front->gain) >> 12; /* a legal program's fits */
      row[b - 1] = (uint8_t)(scaled < 0 ? 0 : scaled > 255 ? 255 : scaled);
    }
    rising = up;
  }
}

void esnn_log_mel_row(const esnn_log_mel *front, const int16_t *ring, uint32_t first, int32_t *work, uint8_t *row) {
  esnn_windowed(front, ring, first, work);
  esnn_transform(front, work);
  esnn_powers(front, work);
  esnn_bands(front, work, row);
}
