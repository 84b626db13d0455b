#!/bin/sh
# What the manager starts: it starts another script, and waits for it.
"$(dirname "$0")/sub.sh" &
echo "start $$"
wait
