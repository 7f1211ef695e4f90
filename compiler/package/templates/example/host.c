/* @{title}: classify one sample and compare with the reference. */
#include <stdio.h>

#include <@{library}.h>

#include "sample.h"

static void say(const char *text) { fputs(text, stdout); }
static void say_number(int32_t number) { printf("%ld", (long)number); }

@{example}
int main(void) {
  int32_t same = try_model();
  if (same < 0) printf("%s\n", esnn_strerror(same));
  return same == 1 ? 0 : 1;
}
