/* What the STM32 files share. Each family's RCC has one enable bit per 1 KB of its buses, in the order of the
 * addresses: an UART's follows from where its registers are. */
#ifndef STM32_H
#define STM32_H

#include <stdint.h>

#include "reg.h"

#define STM32_APB1 0x40000000u
#define STM32_APB2 0x40010000u

/* Bit of the peripheral at `base` in the enable registers of its bus; from 32 on it is the second register's. */
#define STM32_BIT(base, bus) (((base) - (bus)) / 0x400u)

/* Clock and pins of the UART, by family. */
void stm32_uart_on(void);

/* At ten cycles a turn 12 ms at 16 MHz, the fastest clock after reset: no oscillator takes as long. */
#define STM32_TURNS 20000u

/* Whether the masked bits of a register become `want` in time. */
static inline int stm32_becomes(uint32_t address, uint32_t mask, uint32_t want) {
  for (uint32_t turn = 0; turn < STM32_TURNS; ++turn) {
    if ((BSP_REG(address) & mask) == want) {
      return 1;
    }
  }
  return 0;
}

/* GPIO of all families but F1: give a pin of the port at `gpio` to the alternate function, input pulled up. */
static inline void stm32_alternate(uint32_t gpio, uint32_t pin, uint32_t function) {
  uint32_t half = gpio + 0x20u + 4u * (pin / 8u), shift = 4u * (pin % 8u); /* AFRL, AFRH */
  BSP_REG(half) = (BSP_REG(half) & ~(15u << shift)) | function << shift;
  BSP_REG(gpio + 0x0Cu) = (BSP_REG(gpio + 0x0Cu) & ~(3u << 2u * pin)) | 1u << 2u * pin; /* PUPDR */
  BSP_REG(gpio) = (BSP_REG(gpio) & ~(3u << 2u * pin)) | 2u << 2u * pin;                 /* MODER */
}

#endif
