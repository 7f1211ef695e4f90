/* The processor's count of its clock cycles, its low 32 bits. */
#include "bsp.h"

static uint32_t begin;

static uint32_t cycles(void) {
  uint32_t count;
  __asm__ volatile(
      ".option push\n"
      ".option arch, +zicsr\n"
      "csrr %0, mcycle\n"
      ".option pop\n"
      : "=r"(count)
      :
      : "memory");
  return count;
}

void bsp_ticks_start(void) { begin = cycles(); }

uint32_t bsp_ticks(void) { return cycles() - begin; }
