"""An ESP32's RAM: a heap that grows, and TLS beside it (docs/esp32-heap.md)."""
