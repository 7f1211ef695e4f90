/* STM32F100 at its 24 MHz: HSI (8 MHz) halved, times six. RM0041, chapter RCC; its flash needs no wait state. */
#include "bsp.h"
#include "stm32/stm32.h"

#define RCC_CR 0x40021000u
#define RCC_CFGR 0x40021004u

#define CR_HSION 1u
#define CR_HSIRDY (1u << 1)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_SW 3u
#define CFGR_SWS (3u << 2)
#define CFGR_SW_PLL 2u
#define CFGR_SWS_PLL (2u << 2)
#define CFGR_PLLMUL_6 (4u << 18) /* of HSI halved, as PLLSRC is 0 */

#if BSP_CLOCK_HZ != 24000000u
#error "this file sets 24 MHz"
#endif

void bsp_clock_init(void) {
  BSP_REG(RCC_CR) |= CR_HSION;
  if (!stm32_becomes(RCC_CR, CR_HSIRDY, CR_HSIRDY)) {
    return;
  }
  BSP_REG(RCC_CFGR) &= ~CFGR_SW; /* HSI, in case a loader has left the PLL on */
  if (!stm32_becomes(RCC_CFGR, CFGR_SWS, 0u)) {
    return;
  }
  BSP_REG(RCC_CR) &= ~CR_PLLON;
  BSP_REG(RCC_CFGR) = CFGR_PLLMUL_6; /* no bus divided */
  BSP_REG(RCC_CR) |= CR_PLLON;
  if (!stm32_becomes(RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
    return;
  }
  BSP_REG(RCC_CFGR) |= CFGR_SW_PLL;
  (void)stm32_becomes(RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL);
}
