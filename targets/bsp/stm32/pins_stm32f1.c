/* Clock and pins of an UART of STM32F1, not remapped: RM0041, chapters RCC and GPIO. */
#include "stm32/stm32.h"

#define RCC_APB2ENR BSP_REG(0x40021018u)
#define RCC_APB1ENR BSP_REG(0x4002101Cu)
#define ENR_PORT(port) (1u << (2u + (port)))
#define GPIO(port) (0x40010800u + 0x400u * (port))
#define ALTERNATE_PUSH_PULL 0xBu /* 50 MHz */
#define INPUT_PULLED 0x8u

static void configure(uint32_t gpio, uint32_t pin, uint32_t mode) {
  uint32_t half = gpio + 4u * (pin / 8u), shift = 4u * (pin % 8u); /* CRL, CRH */
  BSP_REG(half) = (BSP_REG(half) & ~(15u << shift)) | mode << shift;
}

void stm32_uart_on(void) {
  RCC_APB2ENR |= ENR_PORT(BSP_UART_TX_PORT) | ENR_PORT(BSP_UART_RX_PORT);
#if BSP_UART_BASE >= STM32_APB2
  RCC_APB2ENR |= 1u << STM32_BIT(BSP_UART_BASE, STM32_APB2);
#else
  RCC_APB1ENR |= 1u << STM32_BIT(BSP_UART_BASE, STM32_APB1);
#endif
  BSP_REG(GPIO(BSP_UART_RX_PORT) + 0x10u) = 1u << BSP_UART_RX_PIN; /* BSRR: pulled up */
  configure(GPIO(BSP_UART_TX_PORT), BSP_UART_TX_PIN, ALTERNATE_PUSH_PULL);
  configure(GPIO(BSP_UART_RX_PORT), BSP_UART_RX_PIN, INPUT_PULLED);
}
