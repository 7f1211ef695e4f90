/* SiFive FE310-G002 on a board with a 16 MHz crystal: PLL to 128 MHz, pins of UART0 (GPIO 16 receives, 17 sends).
 * FE310-G002 manual, chapters PRCI, GPIO, SPI. */
#include "bsp.h"
#include "reg.h"

#define REG BSP_REG
#define RING 0x10008000u
#define CRYSTAL 0x10008004u
#define PLL 0x10008008u
#define PLL_DIVIDER 0x1000800Cu
#define GPIO_FUNCTION_ON 0x10012038u
#define GPIO_FUNCTION 0x1001203Cu
#define FLASH_CLOCK 0x10014000u

#define OSCILLATOR_ON (1u << 30)
#define READY (1u << 31)           /* oscillators and PLL */
#define PLL_512_MHZ (31u << 4 | 1u) /* crystal / 2 * 2 * 32 */
#define PLL_BY_4 (2u << 10)
#define PLL_IN_USE (1u << 16) /* else the ring oscillator */
#define PLL_OF_CRYSTAL (1u << 17)
#define DIVIDE_BY_1 (1u << 8)
#define UART0_PINS (3u << 16)
#define FLASH_BY_8 3u /* 16 MHz of the 50 that plain reads may have; as after reset */

#define PATIENCE 1000000u
#define SETTLE 4000u /* turns that take more than the PLL's 100 us at any clock of the ring */

#if BSP_CLOCK_HZ != 128000000u
#error "the PLL is set to 128 MHz"
#endif

static int32_t ready(uint32_t of) {
  for (uint32_t i = 0u; i < PATIENCE; ++i) {
    if ((REG(of) & READY) != 0u) {
      return 1;
    }
  }
  return 0;
}

void bsp_clock_init(void) {
  REG(GPIO_FUNCTION) &= ~UART0_PINS;
  REG(GPIO_FUNCTION_ON) |= UART0_PINS;
  /* The boot loader may have left the PLL in use: it must not be while it is set. */
  REG(RING) |= OSCILLATOR_ON;
  (void)ready(RING);
  REG(PLL) &= ~PLL_IN_USE;
  REG(FLASH_CLOCK) = FLASH_BY_8;
  REG(CRYSTAL) = OSCILLATOR_ON;
  if (ready(CRYSTAL) == 0) {
    return;
  }
  REG(PLL_DIVIDER) = DIVIDE_BY_1;
  REG(PLL) = PLL_OF_CRYSTAL | PLL_512_MHZ | PLL_BY_4;
  for (uint32_t i = 0u; i < SETTLE; ++i) {
    (void)REG(PLL); /* READY means nothing before */
  }
  if (ready(PLL) != 0) {
    REG(PLL) |= PLL_IN_USE;
  }
}
