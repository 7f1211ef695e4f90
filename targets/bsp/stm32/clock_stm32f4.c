/* STM32F4 from HSI (16 MHz) to BSP_CLOCK_HZ, a whole number of MHz in 100...180; APB1 at a quarter, APB2 at half
 * of it. RM0090 (F405, F407: to 168 MHz) and RM0390 (F446: to 180 MHz, above 168 with over-drive): chapters PWR,
 * RCC, flash interface; supply 2.7 V to 3.6 V. HSI is within 1 % at 25 C, 8 % over temperature, and with it whatever
 * is timed. */
#include "bsp.h"
#include "stm32/stm32.h"

#define PWR_CR 0x40007000u
#define PWR_CSR 0x40007004u
#define RCC_CR 0x40023800u
#define RCC_PLLCFGR 0x40023804u
#define RCC_CFGR 0x40023808u
#define RCC_APB1ENR 0x40023840u
#define FLASH_ACR 0x40023C00u

#define CR_HSION 1u
#define CR_HSIRDY (1u << 1)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_SW 3u
#define CFGR_SWS (3u << 2)
#define CFGR_SW_PLL 2u
#define CFGR_SWS_PLL (2u << 2)
#define CFGR_PPRE1_4 (5u << 10)
#define CFGR_PPRE2_2 (4u << 13)
#define APB1ENR_PWREN (1u << 28)
#define PWR_ODEN (1u << 16) /* ready: the same bit of CSR */
#define PWR_ODSWEN (1u << 17)
#define ACR_LATENCY 15u
#define ACR_CACHES (7u << 8) /* prefetch, instructions, data */

#if BSP_CLOCK_HZ % 1000000u != 0 || BSP_CLOCK_HZ < 100000000u || BSP_CLOCK_HZ > 180000000u
#error "this file sets whole MHz in 100...180"
#endif

/* VCO: 16 MHz / M = 2 MHz, times N = MHz of the core; the core gets a half of it (P = 0 stands for 2). Q = 8
 * keeps the 48 MHz domain below its limit, R = 2 is the reset value. */
#define PLL (8u | (BSP_CLOCK_HZ / 1000000u) << 6 | 8u << 24 | 2u << 28)
#define WAIT_STATES ((BSP_CLOCK_HZ - 1u) / 30000000u)

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
  if (!stm32_becomes(RCC_CR, CR_PLLRDY, 0u)) {
    return;
  }
  BSP_REG(RCC_PLLCFGR) = PLL;
  BSP_REG(RCC_CR) |= CR_PLLON;
#if BSP_CLOCK_HZ > 168000000u
  BSP_REG(RCC_APB1ENR) |= APB1ENR_PWREN;
  (void)BSP_REG(RCC_APB1ENR);
  BSP_REG(PWR_CR) |= PWR_ODEN;
  if (!stm32_becomes(PWR_CSR, PWR_ODEN, PWR_ODEN)) {
    return;
  }
  BSP_REG(PWR_CR) |= PWR_ODSWEN;
  if (!stm32_becomes(PWR_CSR, PWR_ODSWEN, PWR_ODSWEN)) {
    return;
  }
#endif
  BSP_REG(FLASH_ACR) = ACR_CACHES | WAIT_STATES;
  if (!stm32_becomes(FLASH_ACR, ACR_LATENCY, WAIT_STATES) ||
      !stm32_becomes(RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
    return;
  }
  BSP_REG(RCC_CFGR) = CFGR_PPRE1_4 | CFGR_PPRE2_2;
  BSP_REG(RCC_CFGR) = CFGR_PPRE1_4 | CFGR_PPRE2_2 | CFGR_SW_PLL;
  (void)stm32_becomes(RCC_CFGR, CFGR_SWS, CFGR_SWS_PLL);
}
