/* What a firmware of a test's own prints with, and that it ends where it crashes. */
#include "bsp.h"

static void put_text(const char *text) {
  for (; *text != '\0'; ++text) {
    bsp_uart_put((uint8_t)*text);
  }
}

static void put_number(uint32_t value) {
  uint8_t digits[10];
  uint32_t count = 0u;
  do {
    digits[count++] = (uint8_t)('0' + value % 10u);
    value /= 10u;
  } while (value != 0u);
  while (count != 0u) {
    bsp_uart_put(digits[--count]);
  }
  bsp_uart_put((uint8_t)' ');
}

void bsp_on_fault(const uint32_t *words, uint32_t count) {
  (void)words;
  (void)count;
  put_text("fault\nend\n");
  for (;;) {
  }
}
