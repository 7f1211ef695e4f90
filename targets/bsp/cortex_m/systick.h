/* SysTick as a counter: 24 bits down, at the processor clock, extended in software. Armv7-M ARM, B3.3. */
#ifndef SYSTICK_H
#define SYSTICK_H

#include <stdint.h>

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#define SYST_BITS 0x00FFFFFFu

static uint32_t systick_last;
static uint32_t systick_total;

static inline void systick_start(void) {
  SYST_CSR = 0u;
  SYST_RVR = SYST_BITS;
  SYST_CVR = 0u; /* reads 0 until the first tick, which loads SYST_BITS */
  systick_last = 0u;
  systick_total = 0u;
  SYST_CSR = 5u; /* processor clock, no interrupt, on */
}

static inline uint32_t systick_ticks(void) {
  uint32_t now = SYST_CVR;
  systick_total += (systick_last - now) & SYST_BITS;
  systick_last = now;
  return systick_total;
}

#endif
