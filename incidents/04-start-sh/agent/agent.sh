#!/bin/bash
# The agent: samples once the application is up, keeps what it has in a buffer, and writes it out when it is stopped.
trap 'echo "agent: stopped, the buffer is written"; exit' TERM
read -r _ <"$APP_IS_UP"
for ((sample = 0; sample < SAMPLES; sample++)); do
    # A probe that goes on in the background: nobody here waits for it.
    sh -c 'uptime >/dev/null &'
done
echo "agent: $SAMPLES samples"
sleep infinity &
wait
