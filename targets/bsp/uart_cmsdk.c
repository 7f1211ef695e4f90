/* Arm CMSDK APB UART (MPS2, MPS3). */
#include "bsp.h"

#define UART_DATA (*(volatile uint32_t *)(BSP_UART_BASE + 0x00u))
#define UART_STATE (*(volatile uint32_t *)(BSP_UART_BASE + 0x04u)) /* bit 0: tx full, bit 1: rx full */
#define UART_CTRL (*(volatile uint32_t *)(BSP_UART_BASE + 0x08u))  /* bit 0: tx on, bit 1: rx on */
#define UART_BAUDDIV (*(volatile uint32_t *)(BSP_UART_BASE + 0x10u))

void bsp_uart_init(void) {
  UART_BAUDDIV = BSP_UART_CLOCK_HZ / BSP_UART_BAUD;
  UART_CTRL = 3u;
  (void)UART_DATA; /* a stale byte; and QEMU looks again for bytes that came before the receiver was on */
}

void bsp_uart_put(uint8_t byte) {
  while ((UART_STATE & 1u) != 0u) {
  }
  UART_DATA = byte;
}

uint8_t bsp_uart_get(void) {
  while ((UART_STATE & 2u) == 0u) {
  }
  return (uint8_t)UART_DATA;
}
