/* Registers of a chip that is not there: every access goes through stm32_model. */
#ifndef STM32_MODEL_H
#define STM32_MODEL_H

#include <stdint.h>

volatile uint32_t *stm32_model(uint32_t address);
#define STM32_REG(address) (*stm32_model(address))

#endif
