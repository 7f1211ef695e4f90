/* Nordic nRF51, nRF52: the crystal instead of the ring oscillator, which is too inexact for a UART; on the nRF52 the
 * instruction cache. nRF51 Series Reference Manual, chapter CLOCK; nRF52840 Product Specification v1.7, 5.4 (CLOCK),
 * 4.3 (NVMC). */
#include "bsp.h"
#include "reg.h"

#define START_CRYSTAL BSP_REG(0x40000000u)
#define CRYSTAL_STARTED BSP_REG(0x40000100u)
#define CACHE BSP_REG(0x4001E540u)
#define CACHE_ON 1u

#define PATIENCE 100000u /* it takes about a millisecond; this is at least ten */

void bsp_clock_init(void) {
#if defined(__ARM_ARCH_7EM__) /* an nRF52 */
  CACHE = CACHE_ON;
#endif
  CRYSTAL_STARTED = 0u;
  START_CRYSTAL = 1u;
  for (uint32_t i = 0u; i < PATIENCE && CRYSTAL_STARTED == 0u; ++i) {
  }
}
