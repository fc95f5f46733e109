#!/bin/bash
# with_engine.sh PROGRAM [ARG...]: runs it beside a private engine: SWARM_TEST_ENGINE, SWARM_TEST_IMAGE.
. "$(dirname "$0")/lib.sh"
lab_init "eng-$(basename "$1")"
lab_host e1 10.213.0.1
engine_start e1
engine_import e1
export SWARM_TEST_ENGINE="unix://$(engine_sock e1)" SWARM_TEST_IMAGE=$LAB_IMAGE SWARM_TEST_NETNS
SWARM_TEST_NETNS=$(lab_ns e1)
"$@"
