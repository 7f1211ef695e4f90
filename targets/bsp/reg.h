/* A register of 32 bits, by its address. */
#ifndef BSP_REG
#include <stdint.h>

#define BSP_REG(address) (*(volatile uint32_t *)(address)) /* tests/board/chip_model.h has its own */
#endif
