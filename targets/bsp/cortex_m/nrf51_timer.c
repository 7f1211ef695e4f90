/* nRF51 TIMER0 as a counter: 32 bits up, at 16 MHz. The chip has no SysTick. */
#include "bsp.h"

#define REG(offset) (*(volatile uint32_t *)(0x40008000u + (offset)))
#define START REG(0x000u)
#define STOP REG(0x004u)
#define CLEAR REG(0x00Cu)
#define CAPTURE REG(0x040u)
#define BIT_MODE REG(0x508u)
#define PRESCALER REG(0x510u)
#define CAPTURED REG(0x540u)
#define BITS_32 3u

void bsp_ticks_start(void) {
  STOP = 1u;
  BIT_MODE = BITS_32;
  PRESCALER = 0u;
  CLEAR = 1u;
  START = 1u;
}

uint32_t bsp_ticks(void) {
  CAPTURE = 1u;
  return CAPTURED;
}
