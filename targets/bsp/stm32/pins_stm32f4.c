/* Clock and pins of an UART of STM32 F2 and F4: RM0033, RM0090 and RM0390, chapters RCC and GPIO. */
#include "stm32/stm32.h"

#define RCC_AHB1ENR BSP_REG(0x40023830u)
#define RCC_APB1ENR BSP_REG(0x40023840u)
#define RCC_APB2ENR BSP_REG(0x40023844u)
#define GPIO(port) (0x40020000u + 0x400u * (port))

void stm32_uart_on(void) {
  RCC_AHB1ENR |= 1u << BSP_UART_TX_PORT | 1u << BSP_UART_RX_PORT;
#if BSP_UART_BASE >= STM32_APB2
  RCC_APB2ENR |= 1u << STM32_BIT(BSP_UART_BASE, STM32_APB2);
  (void)RCC_APB2ENR; /* the peripheral is there two cycles later */
#else
  RCC_APB1ENR |= 1u << STM32_BIT(BSP_UART_BASE, STM32_APB1);
  (void)RCC_APB1ENR;
#endif
  stm32_alternate(GPIO(BSP_UART_TX_PORT), BSP_UART_TX_PIN, BSP_UART_FUNCTION);
  stm32_alternate(GPIO(BSP_UART_RX_PORT), BSP_UART_RX_PIN, BSP_UART_FUNCTION);
}
