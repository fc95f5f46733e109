/* test.h - cmocka with what it wants to see before it (in a block of its own: the order matters).
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
