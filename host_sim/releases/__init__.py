"""Releases of MicroPython, as 32-bit WebAssembly in Node.js, on the host's flash and sockets."""
