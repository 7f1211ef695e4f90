/* Nordic nRF51 UART on the micro:bit's USB pins. Its FIFO holds six bytes. */
#include "bsp.h"

#define REG(offset) (*(volatile uint32_t *)(BSP_UART_BASE + (offset)))
#define START_RX REG(0x000u)
#define START_TX REG(0x008u)
#define RX_READY REG(0x108u)
#define TX_READY REG(0x11Cu)
#define INTERRUPTS_SET REG(0x304u)
#define ENABLE REG(0x500u)
#define PIN_TX REG(0x50Cu)
#define PIN_RX REG(0x514u)
#define RX_DATA REG(0x518u)
#define TX_DATA REG(0x51Cu)
#define BAUD REG(0x524u)

#define GPIO_OUT_SET (*(volatile uint32_t *)0x50000508u)
#define GPIO_OUTPUTS (*(volatile uint32_t *)0x50000518u)

#define INTERRUPT_RX 4u
#define ON 4u
#define TX 24u
#define RX 25u

void bsp_uart_init(void) {
  GPIO_OUT_SET = 1u << TX;
  GPIO_OUTPUTS = 1u << TX;
  PIN_TX = TX;
  PIN_RX = RX;
  ENABLE = ON;
  /* 2^32 steps of the clock a bit, of which the hardware looks at the upper 20 bits. */
  BAUD = (uint32_t)((((uint64_t)BSP_UART_BAUD << 32) / BSP_UART_CLOCK_HZ + 0x800u) & 0xFFFFF000u);
  START_TX = 1u;
  START_RX = 1u;
  RX_READY = 0u;
  INTERRUPTS_SET = INTERRUPT_RX;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  TX_READY = 0u;
  TX_DATA = byte;
  while (TX_READY == 0u) {
  }
}

uint8_t bsp_uart_get(void) {
  while (RX_READY == 0u) {
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between keeps the line pending, or is seen here. */
    if (RX_READY == 0u) {
      bsp_wait();
    }
  }
  RX_READY = 0u; /* before the read, which may announce the next byte */
  return (uint8_t)RX_DATA;
}
