/* 16550 UART, registers one byte apart. Its FIFO holds 16 bytes. */
#include "bsp.h"

#define REG(offset) (*(volatile uint8_t *)(BSP_UART_BASE + (offset)))
#define UART_DATA REG(0u)
#define UART_DIVISOR_LOW REG(0u)
#define UART_DIVISOR_HIGH REG(1u)
#define UART_INTERRUPTS REG(1u)
#define UART_FIFO REG(2u)
#define UART_LINE_CONTROL REG(3u)
#define UART_LINE_STATUS REG(5u)

#define INTERRUPT_RX 1u
#define FIFO_ON_AND_EMPTY 7u
#define LINE_8N1 3u
#define LINE_DIVISOR 0x80u
#define STATUS_RX_READY 1u
#define STATUS_TX_EMPTY 0x20u

void bsp_uart_init(void) {
  uint32_t divisor = BSP_UART_CLOCK_HZ / (16u * BSP_UART_BAUD);
  UART_LINE_CONTROL = LINE_DIVISOR | LINE_8N1;
  UART_DIVISOR_LOW = (uint8_t)divisor;
  UART_DIVISOR_HIGH = (uint8_t)(divisor >> 8);
  UART_LINE_CONTROL = LINE_8N1;
  UART_FIFO = FIFO_ON_AND_EMPTY;
  UART_INTERRUPTS = INTERRUPT_RX;
  bsp_wake_enable(BSP_UART_IRQ);
}

void bsp_uart_put(uint8_t byte) {
  while ((UART_LINE_STATUS & STATUS_TX_EMPTY) == 0u) {
  }
  UART_DATA = byte;
}

uint8_t bsp_uart_get(void) {
  while ((UART_LINE_STATUS & STATUS_RX_READY) == 0u) {
    bsp_wake_clear(BSP_UART_IRQ);
    /* A byte that has come in between raises the line again, or is seen here. */
    if ((UART_LINE_STATUS & STATUS_RX_READY) == 0u) {
      bsp_wait();
    }
  }
  return UART_DATA;
}
