/* Clocks of three STM32 families as their reference manuals state them, to run clock and UART files on a host.
 *
 * MODEL is 100 (RM0041), 405 (RM0090), 446 (RM0390) or 4500 (L4R5, RM0432). MODEL_DEAD: no oscillator gets ready.
 * Before each access what was asked for takes effect, oscillators after some accesses, and what a manual forbids
 * is printed as "forbidden: ...". A byte comes in when the firmware sleeps. At the end come the clocks, and every
 * register that was touched. */
#include "chip_model.h"

#include <stdio.h>
#include <stdlib.h>

#include "bsp.h"

#define DELAY 50 /* accesses until an oscillator is ready */
#define PATIENCE 1000000u
#define MHZ 1000000u
#define PLL_SOURCE (MODEL == 4500 ? 3u : 2u)
#define HSI_SOURCE (MODEL == 4500 ? 1u : 0u)
#define HSI_BIT (MODEL == 4500 ? 10u : 1u)
#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct word {
  uint32_t address, value;
} word;

#if MODEL == 100
#define RCC 0x40021000u
#define CR (RCC + 0x00u)
#define CFGR (RCC + 0x04u)
#define PLL_FIELDS CFGR
#define PLL_MASK (63u << 16)
#define READY_HSI 1u, 1u << 1
static word words[64] = {{CR, 0x83u}, {CFGR, 0u}, {0x40010804u, 0x44444444u}, {0x40010800u, 0x44444444u}};
#elif MODEL == 405 || MODEL == 446
#define RCC 0x40023800u
#define CR (RCC + 0x00u)
#define PLLCFGR (RCC + 0x04u)
#define CFGR (RCC + 0x08u)
#define APB1ENR (RCC + 0x40u)
#define ACR 0x40023C00u
#define PWR_CR 0x40007000u
#define PWR_CSR 0x40007004u
#define PLL_FIELDS PLLCFGR
#define PLL_MASK 0xFFFFFFFFu
#define READY_HSI 1u, 1u << 1
static word words[64] = {{CR, 0x83u}, {PLLCFGR, 0x24003010u}, {PWR_CR, MODEL == 446 ? 0xC000u : 0x4000u},
                         {0x40020000u, 0xA8000000u}, {0x40020400u, 0x280u}};
#else
#define RCC 0x40021000u
#define CR (RCC + 0x00u)
#define CFGR (RCC + 0x08u)
#define PLLCFGR (RCC + 0x0Cu)
#define APB1ENR (RCC + 0x58u)
#define ACR 0x40022000u
#define PWR_CR1 0x40007000u
#define PWR_CR5 0x40007080u
#define PLL_FIELDS PLLCFGR
#define PLL_MASK 0xFFFFFFFFu
#define READY_HSI 1u << 8, 1u << 10
static word words[64] = {{CR, 0x63u},        {PLLCFGR, 0x1000u},         {PWR_CR1, 0x200u},
                         {PWR_CR5, 0x100u}, {0x48001800u, 0xFFFFFFFFu}};
#endif

#if MODEL == 4500
#define UART_STATUS (BSP_UART_BASE + 0x1Cu)
#define UART_RECEIVED (BSP_UART_BASE + 0x24u)
#define UART_SENT (BSP_UART_BASE + 0x28u)
#else
#define UART_STATUS BSP_UART_BASE
#define UART_RECEIVED (BSP_UART_BASE + 4u)
#define UART_SENT UART_RECEIVED
#endif
#define OVERRUN (1u << 3)
#define RECEIVED (1u << 5)
#define SENT (3u << 6)

static uint32_t *at(uint32_t address) {
  for (uint32_t i = 0; i < COUNT(words); ++i) {
    if (words[i].address == address || words[i].address == 0u) {
      words[i].address = address;
      return &words[i].value;
    }
  }
  printf("forbidden: more registers than the model has\n");
  return &words[0].value;
}

static void forbid(int wrong, const char *what) {
  if (wrong) {
    printf("forbidden: %s\n", what);
  }
}

/* The PLL's output; 0 where its fields make no sense. */
static uint32_t pll_hz(void) {
#if MODEL == 100
  uint32_t fields = *at(CFGR);
  return (fields >> 16 & 1u) != 0u ? 0u : 4u * MHZ * ((fields >> 18 & 15u) + 2u);
#elif MODEL == 405 || MODEL == 446
  uint32_t fields = *at(PLLCFGR), m = fields & 63u, n = fields >> 6 & 511u, p = 2u * (fields >> 16 & 3u) + 2u;
  uint32_t q = fields >> 24 & 15u, vco = m == 0u ? 0u : 16u * MHZ / m * n;
  forbid(m == 0u || 16u % m != 0u || 16u / m < 1u || 16u / m > 2u, "VCO input not 1 MHz or 2 MHz");
  forbid(n < 50u || n > 432u || vco < 100u * MHZ || vco > 432u * MHZ, "VCO output out of range");
  forbid(q < 2u || vco / q > 48u * MHZ, "48 MHz domain too fast");
  forbid(fields >> 28 != 2u || (fields >> 22 & 1u) != 0u, "reserved bits or HSE");
  return vco / p;
#else
  uint32_t fields = *at(PLLCFGR), in = 16u * MHZ / ((fields >> 4 & 15u) + 1u), n = fields >> 8 & 127u;
  uint32_t vco = in * n, r = 2u * (fields >> 25 & 3u) + 2u;
  forbid((fields & 3u) != 2u, "source not HSI16");
  forbid(in < 2660000u || in > 8u * MHZ, "VCO input out of range");
  forbid(n < 8u || vco < 64u * MHZ || vco > 344u * MHZ, "VCO output out of range");
  return (fields >> 24 & 1u) != 0u ? vco / r : 0u;
#endif
}

static uint32_t core_hz, apb_hz[2];

static void clocks(void) {
  uint32_t cfgr = *at(CFGR), source = cfgr >> 2 & 3u, hz;
#if MODEL == 4500
  hz = source == 3u ? pll_hz() : source == 1u ? 16u * MHZ : 4u * MHZ;
  forbid(source == 3u && (cfgr >> 4 & 15u) == 0u && core_hz <= 16u * MHZ, "over 80 MHz in one step");
  uint32_t ahb = (cfgr >> 4 & 15u) == 8u ? 2u : 1u, apb1 = cfgr >> 8 & 7u, apb2 = cfgr >> 11 & 7u;
#else
  hz = source == 2u ? pll_hz() : (MODEL == 100 ? 8u : 16u) * MHZ;
  uint32_t ahb = 1u, apb1 = MODEL == 100 ? cfgr >> 8 & 7u : cfgr >> 10 & 7u;
  uint32_t apb2 = MODEL == 100 ? cfgr >> 11 & 7u : cfgr >> 13 & 7u;
  forbid((cfgr >> 4 & 15u) != 0u, "a divider that the model has not");
#endif
  forbid(hz == 0u, "no clock");
  core_hz = hz / ahb;
  apb_hz[0] = core_hz >> (apb1 < 4u ? 0u : apb1 - 3u);
  apb_hz[1] = core_hz >> (apb2 < 4u ? 0u : apb2 - 3u);
#if MODEL == 100
  forbid(core_hz > 24u * MHZ, "core too fast");
#elif MODEL == 405 || MODEL == 446
  uint32_t high = core_hz > 168u * MHZ ? 1u : 0u;
  forbid((*at(ACR) & 15u) < (core_hz - 1u) / (30u * MHZ), "too few wait states");
  forbid(high && (MODEL != 446 || (*at(PWR_CSR) >> 16 & 3u) != 3u), "too fast without over-drive");
  forbid(core_hz > 180u * MHZ, "core too fast");
  forbid(apb_hz[0] > (high ? 45u : 42u) * MHZ || apb_hz[1] > (high ? 90u : 84u) * MHZ, "bus too fast");
#else
  forbid((*at(ACR) & 15u) < (core_hz - 1u) / (20u * MHZ), "too few wait states");
  forbid((*at(PWR_CR1) >> 9 & 3u) != 1u, "not voltage range 1");
  forbid(hz > 80u * MHZ && (*at(PWR_CR5) >> 8 & 1u) != 0u, "too fast without boost");
  forbid(core_hz > 120u * MHZ, "core too fast");
#endif
}

/* `ready` follows `on`, later where it rises. */
static void follow(uint32_t address, uint32_t on, uint32_t ready, int *waited) {
  uint32_t *value = at(address);
  if ((*value & on) == 0u) {
    *value &= ~ready;
    *waited = 0;
#ifndef MODEL_DEAD
  } else if (++*waited > DELAY) {
    *value |= ready;
#endif
  }
}

volatile uint32_t *chip_model(uint32_t address) {
  static int waited_hsi, waited_pll;
  static uint32_t fields;
  uint32_t before = *at(CR) & 1u << 25; /* the PLL has locked */
  uint32_t now = *at(PLL_FIELDS) & PLL_MASK;
  forbid(before != 0u && now != fields, "PLL changed while it runs");
  fields = now;
  forbid(before != 0u && (*at(CR) & 1u << 24) == 0u && (*at(CFGR) >> 2 & 3u) >= 2u, "PLL off in use");
  follow(CR, READY_HSI, &waited_hsi);
  follow(CR, 1u << 24, 1u << 25, &waited_pll);
#if MODEL == 405 || MODEL == 446
  uint32_t drive = *at(PWR_CR) >> 16 & 3u;
  forbid(drive != 0u && (MODEL != 446 || (*at(APB1ENR) >> 28 & 1u) == 0u), "over-drive without PWR's clock");
  forbid(drive == 2u, "over-drive switched on before it is there");
#ifndef MODEL_DEAD
  *at(PWR_CSR) = (*at(PWR_CSR) & ~(3u << 16)) | drive << 16;
#endif
#endif
  uint32_t cfgr = *at(CFGR), wanted = cfgr & 3u, cr = *at(CR);
  uint32_t ready = wanted == PLL_SOURCE ? cr >> 25 : wanted == HSI_SOURCE ? cr >> HSI_BIT : 1u; /* bit 0 */
  forbid(wanted == PLL_SOURCE && (ready & 1u) == 0u, "switched to a PLL that has not locked");
  if ((ready & 1u) != 0u) {
    *at(CFGR) = (cfgr & ~(3u << 2)) | wanted << 2;
  }
  clocks();
  static uint32_t accesses;
  if (++accesses > PATIENCE) {
    printf("forbidden: waiting for ever\n");
    exit(0);
  }
  if (address == UART_RECEIVED) {
    *at(UART_STATUS) &= ~(RECEIVED | OVERRUN);
  }
  return at(address);
}

void bsp_wake_enable(uint32_t irq) { printf("irq %u\n", irq); }
void bsp_wake_clear(uint32_t irq) { (void)irq; }

static uint32_t slept;

void bsp_wait(void) {
  ++slept;
  *at(UART_STATUS) |= RECEIVED;
  *at(UART_RECEIVED) = 0x41u;
}

static void send_and_receive(void) {
  *at(UART_STATUS) = SENT;
  bsp_uart_put(0x5Au);
  printf("sent %u\n", *at(UART_SENT));
  printf("waited_for %u\n", bsp_uart_get());
#if MODEL != 4500                     /* whose overruns are switched off */
  *at(UART_STATUS) = SENT | OVERRUN; /* a byte was lost, and none is there */
  printf("after_overrun %u\n", bsp_uart_get());
  *at(UART_STATUS) = SENT | OVERRUN | RECEIVED; /* one was lost after this one */
  *at(UART_RECEIVED) = 0x42u;
  printf("before_overrun %u\n", bsp_uart_get());
#endif
  printf("status %u\nslept %u\n", *at(UART_STATUS), slept);
}

int main(void) {
  bsp_clock_init();
  bsp_uart_init();
  (void)chip_model(CR);
  printf("core %u\napb1 %u\napb2 %u\n", core_hz, apb_hz[0], apb_hz[1]);
  for (uint32_t i = 0; i < COUNT(words) && words[i].address != 0u; ++i) {
    printf("0x%08X %u\n", words[i].address, words[i].value);
  }
  send_and_receive();
  return 0;
}
