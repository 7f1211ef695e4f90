/* Bits of a spike map's word. */
#ifndef ESNN_BITS_H
#define ESNN_BITS_H

#include <stdint.h>

/* Kernels from C include this; LLVM objects call a copy with external linkage. */
#ifndef ESNN_BITS_LINKAGE
#define ESNN_BITS_LINKAGE static inline
#endif

ESNN_BITS_LINKAGE int32_t esnn_first_bit(uint32_t word);
ESNN_BITS_LINKAGE int32_t esnn_count_bits(uint32_t word);

/* Number of the lowest set bit; word is not 0. */
ESNN_BITS_LINKAGE int32_t esnn_first_bit(uint32_t word) {
#if defined(__ARM_FEATURE_CLZ) || defined(__x86_64__) || defined(__aarch64__) || defined(__riscv_zbb)
  return __builtin_ctz(word);
#else
  /* The lowest bit alone times a de Bruijn sequence has its number's code in the top five bits. */
  static const uint8_t number[32] = {0,  1,  28, 2,  29, 14, 24, 3, 30, 22, 20, 15, 25, 17, 4,  8,
                                     31, 27, 13, 23, 21, 19, 16, 7, 26, 12, 18, 6,  11, 5,  10, 9};
  return number[((word & (0u - word)) * 0x077CB531u) >> 27];
#endif
}

/* Number of set bits. */
ESNN_BITS_LINKAGE int32_t esnn_count_bits(uint32_t word) {
  word -= (word >> 1) & 0x55555555u;
  word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
  word = (word + (word >> 4)) & 0x0F0F0F0Fu;
  word += word >> 8;
  return (int32_t)((word + (word >> 16)) & 63u);
}

#endif
