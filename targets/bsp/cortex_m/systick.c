/* SysTick as a counter: 24 bits down, at the processor clock, extended in software. */
#include "bsp.h"

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#define MASK 0x00FFFFFFu

static uint32_t last;
static uint32_t total;

void bsp_ticks_start(void) {
  SYST_CSR = 0u;
  SYST_RVR = MASK;
  SYST_CVR = 0u; /* reads 0 until the first tick, which loads MASK */
  last = 0u;
  total = 0u;
  SYST_CSR = 5u; /* processor clock, no interrupt, on */
}

uint32_t bsp_ticks(void) {
  uint32_t now = SYST_CVR;
  total += (last - now) & MASK;
  last = now;
  return total;
}
