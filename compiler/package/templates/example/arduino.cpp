// @{title}: classify one sample every second and compare with the reference.
@{arduino_h}#include <@{library}.h>

#include "sample.h"

static void say(const char *text) { Serial.print(text); }
static void say_number(int32_t number) { Serial.print((long)number); }

@{example}
void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 3000) {
  }
}

void loop() {
  int32_t same = try_model();
  if (same < 0) Serial.println(esnn_strerror(same));
  delay(1000);
}
