/* Registers of a chip that is not there: every access goes through chip_model. */
#ifndef CHIP_MODEL_H
#define CHIP_MODEL_H

#include <stdint.h>

volatile uint32_t *chip_model(uint32_t address);
#define BSP_REG(address) (*chip_model(address))

#endif
