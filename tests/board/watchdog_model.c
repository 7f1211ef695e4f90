/* Runs a watchdog's file on a host: every access to a register is printed with what it left there. */
#include <stdint.h>
#include <stdio.h>

#include "bsp.h"

static uint32_t word, at;

uint32_t *watchdog_model(uint32_t address) {
  if (at != 0u) {
    printf("0x%08X %u\n", (unsigned)at, (unsigned)word);
  }
  at = address;
  word = 0u; /* not busy */
  return &word;
}

int main(void) {
  bsp_watchdog_start();
  bsp_watchdog_kick();
  (void)watchdog_model(0u);
  return 0;
}
