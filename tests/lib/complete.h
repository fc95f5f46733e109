/* complete.h - a COMPLETE as a manager with many tasks on one node sends it. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* malloc'd encoding of an AssignmentsMessage with @n tasks of about 2.5 KB each. */
uint8_t *complete_encoded(size_t n, size_t *len);
