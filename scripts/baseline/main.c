/* Firmware of the dense baseline: for every frame "ticks:ticks of each step:answer" on the UART, then "end". */
#include "bsp.h"
#include "net.h"

#define MAX_STEPS 32u

static void put_text(const char *text) {
  for (; *text != '\0'; ++text) {
    bsp_uart_put((uint8_t)*text);
  }
}

static void put_number(int32_t value) {
  uint8_t digits[10];
  uint32_t count = 0u;
  uint32_t rest = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
  if (value < 0) {
    bsp_uart_put('-');
  }
  do {
    digits[count++] = (uint8_t)('0' + rest % 10u);
    rest /= 10u;
  } while (rest != 0u);
  while (count != 0u) {
    bsp_uart_put(digits[--count]);
  }
  bsp_uart_put(' ');
}

static void fill_frame(uint32_t state) {
  uint8_t *frame = net_frame();
  for (uint32_t i = 0u; i < net_frame_bytes; ++i) {
    state = 1664525u * state + 1013904223u;
    frame[i] = (uint8_t)(state >> 24);
  }
}

void bsp_on_fault(const uint32_t *words, uint32_t count) {
  put_text("fault ");
  for (uint32_t i = 0u; i < count; ++i) {
    put_number((int32_t)words[i]);
  }
  put_text("\nend\n");
  for (;;) {
  }
}

int main(void) {
  static uint32_t ticks[MAX_STEPS];
  for (uint32_t seed = 1u; seed <= net_frames; ++seed) {
    fill_frame(seed);
    bsp_ticks_start();
    for (uint32_t i = 0u; i < net_step_count; ++i) {
      net_steps[i]();
    }
    put_number((int32_t)bsp_ticks());
    put_text(":");
    /* Once more, for the share of each step: its frame has been overwritten. */
    fill_frame(seed);
    bsp_ticks_start();
    for (uint32_t i = 0u; i < net_step_count; ++i) {
      net_steps[i]();
      ticks[i % MAX_STEPS] = bsp_ticks();
    }
    for (uint32_t i = 0u; i < net_step_count; ++i) {
      put_number((int32_t)(ticks[i] - (i == 0u ? 0u : ticks[i - 1u])));
    }
    put_text(":");
    for (uint32_t i = 0u; i < net_answers; ++i) {
      put_number(net_answer()[i]);
    }
    bsp_uart_put('\n');
  }
  put_text("end\n");
  return 0;
}
