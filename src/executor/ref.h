/* ref.h - image references (distribution's grammar, as far as names go). Pure. */
#pragma once
#include <stdbool.h>

/* What the engine's CLI shows: default registry and "library/" dropped, ":latest" added when there
 * is neither tag nor digest. What is no reference comes back as it is. malloc'd. */
char *ref_familiar(const char *image);
/* The full form for pulls: "docker.io/library/redis:7". malloc'd. */
char *ref_canonical(const char *image);
/* The registry: "docker.io", "reg:5000"; NULL if it is no reference. malloc'd. */
char *ref_domain(const char *image);
/* An image id: "sha256:" and 64 hex digits, which no registry can serve. */
bool ref_is_id(const char *image);
bool ref_has_digest(const char *image);
