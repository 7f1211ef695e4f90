/* Nordic watchdog (nRF51, nRF52), on 32768 Hz, which it starts itself; it stands still while a debugger holds the
 * processor. nRF51 Series Reference Manual, chapter WDT; nRF52840 Product Specification v1.7, 6.37. */
#include "bsp.h"
#include "reg.h"

#define REG(offset) BSP_REG(0x40010000u + (offset))
#define START REG(0x000u)
#define RELOAD_VALUE REG(0x504u)
#define RELOAD_ENABLE REG(0x508u)
#define CONFIG REG(0x50Cu)
#define RELOAD_0 REG(0x600u)

#define CONFIG_RUN_ASLEEP 1u
#define RELOAD 0x6E524635u
#define FASTEST_KHZ 35u /* of the ring oscillator */

void bsp_watchdog_start(void) {
  CONFIG = CONFIG_RUN_ASLEEP;
  RELOAD_VALUE = BSP_WATCHDOG_MS * FASTEST_KHZ;
  RELOAD_ENABLE = 1u; /* request 0 alone */
  START = 1u;
}

void bsp_watchdog_kick(void) { RELOAD_0 = RELOAD; }
