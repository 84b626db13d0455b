#!/bin/bash
# Brings the agent up as vendors do: a daemon in a session of its own, and no word of how it is to be stopped.
setsid /incident/agent/agent.sh </dev/null &
