#!/bin/sh
# What the manager does not know of.
echo "sub $$"
while :; do sleep 1000; done
