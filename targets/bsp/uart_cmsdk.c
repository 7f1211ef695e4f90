/* Arm CMSDK APB UART (MPS2, MPS3). It buffers one byte. */
#include "bsp.h"

#define UART_DATA (*(volatile uint32_t *)(BSP_UART_BASE + 0x00u))
#define UART_STATE (*(volatile uint32_t *)(BSP_UART_BASE + 0x04u))
#define UART_CTRL (*(volatile uint32_t *)(BSP_UART_BASE + 0x08u))
#define UART_INTCLEAR (*(volatile uint32_t *)(BSP_UART_BASE + 0x0Cu))
#define UART_BAUDDIV (*(volatile uint32_t *)(BSP_UART_BASE + 0x10u))

#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CTRL_TX_ON 1u
#define CTRL_RX_ON 2u
#define CTRL_RX_INTERRUPT 8u
#define INT_RX 2u

void bsp_uart_init(void) {
  UART_BAUDDIV = BSP_UART_CLOCK_HZ / BSP_UART_BAUD;
  UART_CTRL = CTRL_TX_ON | CTRL_RX_ON | CTRL_RX_INTERRUPT;
  bsp_wake_enable(BSP_UART_IRQ);
  (void)UART_DATA; /* a stale byte; and QEMU looks again for bytes that came before the receiver was on */
}

void bsp_uart_put(uint8_t byte) {
  while ((UART_STATE & STATE_TX_FULL) != 0u) {
  }
  UART_DATA = byte;
}

uint8_t bsp_uart_get(void) {
  while ((UART_STATE & STATE_RX_FULL) == 0u) {
    UART_INTCLEAR = INT_RX;
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between keeps the line pending, or is seen here. */
    if ((UART_STATE & STATE_RX_FULL) == 0u) {
      bsp_wait();
    }
  }
  return (uint8_t)UART_DATA;
}
