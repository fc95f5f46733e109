/* chain_model.h - plays a program of chain operations, encoded in bytes, against flat buffers. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Aborts with a message at the first difference, or when a block is left over. */
void chain_model_run(const uint8_t *program, size_t size);
