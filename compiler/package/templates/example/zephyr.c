/* @{title}: classify one sample and compare with the reference. */
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include <@{library}.h>

#include "sample.h"

static void say(const char *text) { printk("%s", text); }
static void say_number(int32_t number) { printk("%d", (int)number); }

@{example}
int main(void) {
  int32_t same = try_model();
  if (same < 0) {
    printk("%s\n", esnn_strerror(same));
  }
  printk(same == 1 ? "PASSED\n" : "FAILED\n");
  return 0;
}
